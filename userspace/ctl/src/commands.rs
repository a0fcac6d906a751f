//! What each command does.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use gm_api::control::{AddRequest, CaptureRequest};
use gm_api::drops::Verdict;
use serde::Serialize;
use tokio::runtime::Builder;
use zeroize::Zeroizing;

use crate::Error;
use crate::args::{Args, Capture, Command, Del, Sa};
use crate::client::Client;
use crate::{drops, table};

/// Sets that are named one by one.
const SHOWN: usize = 32;

pub(crate) fn execute(args: Args, input: &mut dyn Read, out: &mut dyn Write) -> Result<u8, Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let client = Client::new(args.socket);
    match args.command {
        Command::Sa(Sa::Add { file, json }) => {
            let request = read_sad(&file, input)?;
            let reply = runtime.block_on(client.add(&request))?;
            if json {
                print_json(out, &reply)?;
                return Ok(crate::OK);
            }
            for warning in &reply.warnings {
                writeln!(out, "warning: {}", table::plain(warning))?;
            }
            for set in reply.sets.iter().take(SHOWN) {
                writeln!(
                    out,
                    "set {} is live: {}",
                    set.set,
                    count(set.sas.len(), "SA")
                )?;
            }
            if reply.sets.len() > SHOWN {
                writeln!(out, "{} are live in all", count(reply.sets.len(), "set"))?;
            }
        }
        Command::Sa(Sa::Del(del)) => delete(&client, &del, &runtime, out)?,
        Command::Sa(Sa::List { from, limit, json }) => {
            let rows = match (from, limit) {
                (None, None) => runtime.block_on(client.list())?,
                _ => {
                    let limit = limit.unwrap_or(usize::MAX);
                    runtime.block_on(client.list_from(from.unwrap_or(0), limit))?
                }
            };
            if json {
                print_json(out, &rows)?;
                return Ok(crate::OK);
            }
            if rows.is_empty() {
                writeln!(out, "no SAs")?;
            } else {
                writeln!(out, "{}", table::sas(&rows))?;
            }
        }
        Command::Stats { json } => {
            let stats = runtime.block_on(client.stats())?;
            if json {
                print_json(out, &stats)?;
                return Ok(crate::OK);
            }
            writeln!(out, "{}", table::reasons(&stats))?;
            let refusals = table::refusals(&stats);
            if !refusals.is_empty() {
                writeln!(out, "{refusals}")?;
            }
            if !stats.workers.is_empty() {
                writeln!(out, "{}", table::workers(&stats))?;
            }
        }
        Command::Health { json } => {
            let health = runtime.block_on(client.health())?;
            if json {
                print_json(out, &health)?;
                return Ok(crate::OK);
            }
            writeln!(out, "{}", table::health(&health))?;
        }
        Command::Capture(Capture::Start { file, max_bytes }) => {
            let file = absolute(&file)?;
            let reply =
                runtime.block_on(client.capture_start(&CaptureRequest { file, max_bytes }))?;
            writeln!(out, "capturing into {}", reply.file)?;
        }
        Command::Capture(Capture::Stop) => {
            let reply = runtime.block_on(client.capture_stop())?;
            let packets = count(
                usize::try_from(reply.packets).unwrap_or(usize::MAX),
                "packet",
            );
            writeln!(
                out,
                "{}: {packets}, {} bytes, {} missed",
                reply.file, reply.bytes, reply.missed
            )?;
        }
        Command::Events { json } => runtime.block_on(follow(&client, json, out))?,
        Command::Drops(args) => runtime.block_on(drops::drops(&client, &args, out))?,
        Command::Explain { address, json } => {
            let said = runtime.block_on(client.explain(address))?;
            if json {
                print_json(out, &said)?;
            } else {
                drops::explanation(&said, out)?;
            }
            return Ok(match said.verdict {
                Verdict::Fine => crate::OK,
                Verdict::Trouble => crate::TROUBLE,
                Verdict::Unknown => crate::UNKNOWN,
            });
        }
        Command::Workers { n, json } => {
            let workers = match n {
                Some(n) => runtime.block_on(client.set_workers(n))?,
                None => runtime.block_on(client.workers())?,
            };
            if json {
                print_json(out, &workers)?;
            } else {
                writeln!(out, "{}", count(workers.workers as usize, "worker"))?;
            }
        }
    }
    Ok(crate::OK)
}

fn delete(
    client: &Client,
    del: &Del,
    runtime: &tokio::runtime::Runtime,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let reply = match (del.set, del.spi, del.dst) {
        (Some(set), ..) if del.to.is_some() => {
            runtime.block_on(client.remove_sets(set, del.to.unwrap_or(set)))?
        }
        (Some(set), ..) => runtime.block_on(client.remove_set(set))?,
        (None, Some(spi), Some(dst)) => runtime.block_on(client.remove_sa(spi, dst))?,
        // The command line lets nothing else through.
        (None, ..) => return Ok(()),
    };
    if del.json {
        return print_json(out, &reply);
    }
    if reply.sets.len() > SHOWN {
        let (sets, sas) = (count(reply.sets.len(), "set"), count(reply.sas, "SA"));
        writeln!(out, "removed {sets}: {sas}")?;
        return Ok(());
    }
    let sets: Vec<String> = reply.sets.iter().map(|set| format!("set {set}")).collect();
    writeln!(
        out,
        "removed {}: {}",
        sets.join(", "),
        count(reply.sas, "SA")
    )?;
    Ok(())
}

async fn follow(client: &Client, json: bool, out: &mut dyn Write) -> Result<(), Error> {
    let mut events = client.events().await?;
    while let Some(event) = events.next().await? {
        if json {
            serde_json::to_writer(&mut *out, &event).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", table::event(&event))?;
        }
        out.flush()?;
    }
    Ok(())
}

fn read_sad(file: &Path, input: &mut dyn Read) -> Result<AddRequest, Error> {
    let name = if file == Path::new("-") {
        "standard input".into()
    } else {
        file.display().to_string()
    };
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if file == Path::new("-") {
        input.read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|mut open| open.read_to_end(&mut bytes))
    };
    read.map_err(|error| Error::File {
        file: name.clone(),
        error,
    })?;
    let text = str::from_utf8(&bytes).map_err(|_| Error::NoText(name.clone()))?;
    Ok(AddRequest {
        sad: text.to_owned(),
        name: Some(name),
    })
}

/// The daemon has a working directory of its own.
fn absolute(file: &Path) -> Result<String, Error> {
    let absolute: PathBuf = std::path::absolute(file).map_err(|error| Error::File {
        file: file.display().to_string(),
        error,
    })?;
    Ok(absolute.display().to_string())
}

pub(crate) fn print_json<T: Serialize>(out: &mut dyn Write, value: &T) -> Result<(), Error> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}
