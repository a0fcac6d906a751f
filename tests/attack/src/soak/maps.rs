//! What is in the BPF maps, read where gmesp has pinned them.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, Map, MapData};

/// The maps that grow with the number of SAs.
pub struct Pinned {
    slots: Array<MapData, [u8; 64]>,
    foreign: HashMap<MapData, [u8; 20], u32>,
}

fn open(dir: &Path, name: &str) -> Result<Map> {
    let path = dir.join(format!("map_{name}"));
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    Ok(Map::from_map_data(data)?)
}

impl Pinned {
    /// Opens them.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(dir: &Path) -> Result<Pinned> {
        Ok(Pinned {
            slots: Array::try_from(open(dir, "SLOTS")?)?,
            foreign: HashMap::try_from(open(dir, "FOREIGN")?)?,
        })
    }

    /// Slots with an SPI.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn slots(&self) -> Result<usize> {
        let mut taken = 0;
        for slot in self.slots.iter() {
            taken += usize::from(slot?[..4] != [0; 4]);
        }
        Ok(taken)
    }

    /// SPIs that gmesp did not choose.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn foreign(&self) -> Result<usize> {
        let mut n = 0;
        for key in self.foreign.keys() {
            key?;
            n += 1;
        }
        Ok(n)
    }
}
