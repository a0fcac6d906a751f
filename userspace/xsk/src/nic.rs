//! Settings and properties of network devices, through ioctls: no ethtool
//! program, and right in the calling thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

/// Set transmit checksum offload.
const ETHTOOL_STXCSUM: u32 = 0x17;
/// Read transmit checksum offload.
const ETHTOOL_GTXCSUM: u32 = 0x16;
/// Read the number of channels.
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// Read the flags of a device.
const ETHTOOL_GFLAGS: u32 = 0x25;
/// Set the flags of a device.
const ETHTOOL_SFLAGS: u32 = 0x26;
/// The flag: VLAN tags are put into frames by the device.
const FLAG_TXVLAN: u32 = 1 << 7;
/// The flag: VLAN tags are taken out of frames by the device.
const FLAG_RXVLAN: u32 = 1 << 8;

/// The device ioctl that carries ethtool requests.
const SIOCETHTOOL: u32 = 0x8946;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;

/// The kernel's `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// The kernel's `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// The index of a device.
///
/// # Errors
///
/// `ENODEV`: there is none of this name in this network namespace.
pub fn index(ifname: &str) -> io::Result<u32> {
    Ok(net::netdevice::name_to_index(socket()?, ifname)?)
}

/// Switches transmit checksum offload on or off. Off, locally sent packets
/// carry whole checksums; a packet that is taken from a virtual device needs
/// that.
///
/// # Errors
///
/// `ENODEV` no such device, `EPERM` needs CAP_NET_ADMIN, `EOPNOTSUPP` the
/// device has no such setting.
pub fn set_tx_checksum(ifname: &str, on: bool) -> io::Result<()> {
    let mut value = Value {
        cmd: ETHTOOL_STXCSUM,
        data: u32::from(on),
    };
    ethtool(ifname, &mut value)
}

/// Whether transmit checksum offload is on.
///
/// # Errors
///
/// As for [`set_tx_checksum`], without `EPERM`.
pub fn tx_checksum(ifname: &str) -> io::Result<bool> {
    let mut value = Value {
        cmd: ETHTOOL_GTXCSUM,
        data: 0,
    };
    ethtool(ifname, &mut value)?;
    Ok(value.data != 0)
}

/// Switches it on or off that the device takes VLAN tags out of frames that
/// come in and keeps them beside the packet. XDP, and who is behind it, sees
/// the bytes only, so it does not see such a tag. Whether that has changed.
///
/// # Errors
///
/// As for [`set_tx_checksum`].
pub fn set_vlan_stripping(ifname: &str, on: bool) -> io::Result<bool> {
    set_flag(ifname, FLAG_RXVLAN, on)
}

/// Switches it on or off that the device puts in the VLAN tags of frames that
/// go out. A veth with that on hands the other end frames without tags.
///
/// # Errors
///
/// As for [`set_tx_checksum`].
pub fn set_vlan_insertion(ifname: &str, on: bool) -> io::Result<()> {
    set_flag(ifname, FLAG_TXVLAN, on).map(drop)
}

/// Whether it was otherwise before.
fn set_flag(ifname: &str, flag: u32, on: bool) -> io::Result<bool> {
    let mut value = Value {
        cmd: ETHTOOL_GFLAGS,
        data: 0,
    };
    ethtool(ifname, &mut value)?;
    let wanted = if on {
        value.data | flag
    } else {
        value.data & !flag
    };
    if wanted == value.data {
        return Ok(false);
    }
    value = Value {
        cmd: ETHTOOL_SFLAGS,
        data: wanted,
    };
    ethtool(ifname, &mut value)?;
    Ok(true)
}

/// The number of receive queues in use; 1 where the driver does not say.
///
/// # Errors
///
/// `ENODEV`: no such device.
pub fn rx_queues(ifname: &str) -> io::Result<u32> {
    let channels = channels(ifname)?;
    Ok(channels.rx.saturating_add(channels.combined).max(1))
}

/// The number of transmit queues in use; 1 where the driver does not say.
///
/// # Errors
///
/// `ENODEV`: no such device.
pub fn tx_queues(ifname: &str) -> io::Result<u32> {
    let channels = channels(ifname)?;
    Ok(channels.tx.saturating_add(channels.combined).max(1))
}

/// All zero where the driver does not say.
fn channels(ifname: &str) -> io::Result<Channels> {
    let mut channels = Channels {
        cmd: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    match ethtool(ifname, &mut channels) {
        Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(error),
        _ => Ok(channels),
    }
}

/// The MTU: bytes of an IP packet, the link header not counted.
///
/// # Errors
///
/// `ENODEV`: no such device.
pub fn mtu(ifname: &str) -> io::Result<u32> {
    let mut request = request(ifname)?;
    ioctl(SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has filled this member.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The hardware address of an Ethernet device.
///
/// # Errors
///
/// `ENODEV`: no such device.
pub fn mac(ifname: &str) -> io::Result<[u8; 6]> {
    let mut request = request(ifname)?;
    ioctl(SIOCGIFHWADDR, &mut request)?;
    // SAFETY: SIOCGIFHWADDR has filled this member.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    // c_char is i8 or u8; the bits are meant.
    Ok(std::array::from_fn(|i| address[i] as u8))
}

fn socket() -> io::Result<OwnedFd> {
    Ok(net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// One of the structures that the kernel reads and writes through SIOCETHTOOL.
trait Ethtool {}
impl Ethtool for Value {}
impl Ethtool for Channels {}

fn ethtool<T: Ethtool>(ifname: &str, value: &mut T) -> io::Result<()> {
    let mut request = request(ifname)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    ioctl(SIOCETHTOOL, &mut request)
}

/// An `ifreq` that names a device, the rest zero.
fn request(ifname: &str) -> io::Result<libc::ifreq> {
    // SAFETY: integers and a union of plain data: zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero as the end of the name.
    if ifname.is_empty() || ifname.len() >= request.ifr_name.len() || ifname.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl(number: u32, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = socket()?;
    // SAFETY: every number used here takes a pointer to an ifreq, and where it
    // holds a pointer (SIOCETHTOOL) that is to the structure of its command.
    // glibc and musl disagree on the type of the number.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), number as _, request) };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_one_queue_and_an_mtu() {
        assert_eq!(rx_queues("lo").unwrap(), 1);
        assert_eq!(tx_queues("lo").unwrap(), 1);
        assert!(mtu("lo").unwrap() >= 1280);
        assert_eq!(mac("lo").unwrap(), [0; 6]);
        assert!(index("lo").unwrap() > 0);
        assert!(tx_checksum("lo").is_ok());
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in [
            "",
            "no-such-device-0",
            "a-name-much-longer-than-fifteen",
            "lo\0",
        ] {
            assert_eq!(
                mtu(name).unwrap_err().raw_os_error(),
                Some(libc::ENODEV),
                "{name:?}"
            );
        }
    }
}
