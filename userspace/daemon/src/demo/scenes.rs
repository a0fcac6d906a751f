//! The demo's story, scene by scene.

use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gm_esp::suite::Suite;

use super::daemon::Daemon;
use super::keys::Keys;
use super::phone::{Phone, Registration};
use super::report::Stage;
use super::wire::{Attack, Network};
use crate::config::PlaneKind;

use super::{DOMAIN, NAT_PRIVATE, PCSCF, Set, UE, UE_PRIVATE, interrupt, links};

/// How long a counter may take to move.
const PATIENCE: Duration = Duration::from_secs(3);

/// Plays all scenes. A step that does not happen is recorded and the story
/// goes on where it can; an error ends it.
pub fn play(set: &Set, daemon: &Daemon, keys: &Keys, dir: &Path, stage: &mut Stage) -> Result<()> {
    let mut table = Vec::new();
    for (number, suite) in Suite::ALL.iter().enumerate() {
        let name = suite.to_string();
        stage.about(Some(&name), Some("trans"));
        stage.scene(&format!("A phone registers in transport mode: {name}"));
        let cast = Cast {
            set,
            daemon,
            keys,
            dir,
        };
        let part = Part {
            number,
            suite: *suite,
            nat: false,
            tcp: false,
        };
        let Some((mut phone, registration)) = cast.register(part, stage)? else {
            continue;
        };
        cast.talk(&mut phone, stage)?;
        table.extend(daemon.sas()?);
        if number == 0 {
            attacks(&cast, &registration, stage)?;
            cast.still_works(&mut phone, stage)?;
        }
        cast.leave(phone, stage)?;
    }
    let cast = Cast {
        set,
        daemon,
        keys,
        dir,
    };
    over_tcp(&cast, &mut table, stage)?;
    behind_a_nat(&cast, &mut table, stage)?;
    stage.about(None, None);
    stage.scene("The SA table as it was while the phones were registered");
    stage.say(&daemon.table(&table));
    stage.scene("What became of every packet at the P-CSCF");
    for (reason, count) in daemon.stats()?.reasons {
        if count > 0 {
            stage.say(&format!("   {count:>8}  {reason}"));
        }
    }
    Ok(())
}

/// SIP over TCP in the SAs: REGISTER and MESSAGE from port_uc to port_ps, and what the
/// network asks on a connection of its own, from port_pc to port_us.
fn over_tcp(
    cast: &Cast<'_>,
    table: &mut Vec<gm_api::control::SaStatus>,
    stage: &mut Stage,
) -> Result<()> {
    let suite = Suite::HmacSha1AesCbc;
    let name = suite.to_string();
    stage.about(Some(&name), Some("trans"));
    stage.scene(&format!("A phone that speaks TCP registers: {name}"));
    let part = Part {
        number: Suite::ALL.len(),
        suite,
        nat: false,
        tcp: true,
    };
    let Some((mut phone, registration)) = cast.register(part, stage)? else {
        return Ok(());
    };
    let echo = phone.echo("hello over TCP")?;
    stage.step(
        "message-to-network-tcp",
        echo.status == 200,
        Some(format!("answered with {}", echo.status)),
    );
    let [_, us, pc, _] = registration.ports;
    stage.step(
        "message-to-phone-tcp",
        echo.came && echo.transport == "tcp",
        Some(match echo.came {
            true => format!("from port {pc} to port {us}, over {}", echo.transport),
            false => "the echo did not come".to_owned(),
        }),
    );
    table.extend(cast.daemon.sas()?);
    cast.leave(phone, stage)
}

fn behind_a_nat(
    cast: &Cast<'_>,
    table: &mut Vec<gm_api::control::SaStatus>,
    stage: &mut Stage,
) -> Result<()> {
    let suite = Suite::NullAesGcm;
    let name = suite.to_string();
    stage.about(Some(&name), Some("udp-enc-tun"));
    stage.scene(&format!(
        "A phone behind a NAT registers, UDP-encapsulated in tunnel mode: {name}"
    ));
    cast.set.wire.become_network(Network::Nat(cast.set.nat))?;
    links::default_route(&cast.set.ue, links::up(&cast.set.ue, "ue0")?, NAT_PRIVATE)?;
    let part = Part {
        number: Suite::ALL.len() + 1,
        suite,
        nat: true,
        tcp: false,
    };
    let Some((mut phone, _)) = cast.register(part, stage)? else {
        return Ok(());
    };
    cast.talk(&mut phone, stage)?;
    let before = cast.daemon.encap_port()?;
    cast.set.wire.rebind()?;
    if cast.daemon.plane() == PlaneKind::Kernel {
        // The first packet teaches the port; what answers it at once may go to the old one.
        let _ = phone.echo("from another port of the NAT");
    }
    let echo = phone.echo("after the NAT has given us another port")?;
    let after = cast.daemon.encap_port()?;
    let port = |p: Option<u16>| p.map_or("unknown".to_owned(), |p| p.to_string());
    stage.step(
        "nat-rebind",
        echo.status == 200 && echo.came && before.is_some() && before != after,
        Some(format!(
            "port_Uenc was {} and is {}; the last MESSAGE was answered with {}, {}",
            port(before),
            port(after),
            echo.status,
            if echo.came {
                "its echo came"
            } else {
                "its echo did not come"
            },
        )),
    );
    table.extend(cast.daemon.sas()?);
    cast.leave(phone, stage)
}

fn attacks(cast: &Cast<'_>, registration: &Registration, stage: &mut Stage) -> Result<()> {
    stage.scene("An attacker on the wire");
    let [uc, _, _, ps] = registration.ports;
    for (name, reason, attack) in [
        ("replayed-packet", "replay", Attack::Replay),
        ("tampered-packet", "bad-icv", Attack::Tamper),
        (
            "spoofed-cleartext",
            "cleartext-protected",
            Attack::Spoof {
                from: SocketAddrV4::new(UE, uc),
                to: SocketAddrV4::new(PCSCF, ps),
            },
        ),
    ] {
        let before = cast.daemon.count(reason)?;
        cast.set.wire.attack(attack)?;
        let after = cast.wait_for(reason, before + 1)?;
        stage.step(
            name,
            after == before + 1,
            Some(format!(
                "dropped as {reason}: {before} before, {after} after"
            )),
        );
    }
    Ok(())
}

/// The part that a phone plays.
#[derive(Clone, Copy)]
struct Part {
    number: usize,
    suite: Suite,
    nat: bool,
    tcp: bool,
}

/// Everything that a scene works with.
struct Cast<'a> {
    set: &'a Set,
    daemon: &'a Daemon,
    keys: &'a Keys,
    dir: &'a Path,
}

impl Cast<'_> {
    fn register(&self, part: Part, stage: &mut Stage) -> Result<Option<(Phone, Registration)>> {
        interrupt::check()?;
        let step = if part.tcp { "register-tcp" } else { "register" };
        let keys = self.keys.next(part.number);
        let mut phone = Phone::start(&self.set.ue, self.dir, &ue_toml(part), Some(&keys))?;
        let mode = if part.nat { "udp-enc-tun" } else { "trans" };
        let wanted = (part.suite.to_string(), mode);
        match phone.register(stage) {
            Ok(got) if (got.suite.as_str(), got.mode.as_str()) == (wanted.0.as_str(), wanted.1) => {
                stage.step(step, true, None);
                Ok(Some((phone, got)))
            }
            Ok(got) => {
                stage.step(step, false, Some(format!("got {} {}", got.suite, got.mode)));
                Ok(None)
            }
            Err(error) => {
                interrupt::check()?;
                stage.step(step, false, Some(format!("{error:#}")));
                Ok(None)
            }
        }
    }

    fn talk(&self, phone: &mut Phone, stage: &mut Stage) -> Result<()> {
        let echo = phone.echo("hello from the phone")?;
        stage.step(
            "message-to-network",
            echo.status == 200,
            Some(format!("answered with {}", echo.status)),
        );
        stage.step(
            "message-to-phone",
            echo.came,
            (!echo.came).then(|| "the echo did not come".to_owned()),
        );
        Ok(())
    }

    fn still_works(&self, phone: &mut Phone, stage: &mut Stage) -> Result<()> {
        let echo = phone.echo("still here after the attacks")?;
        let good = echo.status == 200 && echo.came;
        stage.step("message-after-attacks", good, None);
        Ok(())
    }

    fn leave(&self, mut phone: Phone, stage: &mut Stage) -> Result<()> {
        let left = phone.deregister();
        interrupt::check()?;
        stage.step(
            "deregister",
            left.is_ok(),
            left.err().map(|e| format!("{e:#}")),
        );
        drop(phone);
        // The P-CSCF keeps the SAs a moment longer for the 200's sake (7.4).
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.daemon.sas()?.is_empty() {
            interrupt::check()?;
            if Instant::now() > deadline {
                bail!("SAs are left at the P-CSCF 10 s after a de-registration");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until a counter has reached `target`, and a moment longer: it
    /// must not pass it.
    fn wait_for(&self, reason: &str, target: u64) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        while self.daemon.count(reason)? < target && Instant::now() < deadline {
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(50));
        self.daemon.count(reason)
    }
}

fn ue_toml(part: Part) -> String {
    let user = super::daemon::user(part.number);
    let address = IpAddr::V4(if part.nat { UE_PRIVATE } else { UE });
    format!(
        "[ue]\nuplink = \"ue0\"\naddress = \"{address}\"\npcscf = \"{PCSCF}:5060\"\n\
         domain = \"{DOMAIN}\"\nimpi = \"{name}@{DOMAIN}\"\nimpu = \"sip:{name}@{DOMAIN}\"\n\
         k = \"{k}\"\nopc = \"{opc}\"\nsuites = [\"{alg}/{ealg}\"]\nudp_enc_tun = {nat}\n\
         [ue.habits]\ntransport = \"{transport}\"\n",
        name = user.name,
        k = user.k,
        opc = user.opc,
        alg = part.suite.alg(),
        ealg = part.suite.ealg(),
        nat = part.nat,
        transport = if part.tcp { "tcp" } else { "udp" },
    )
}
