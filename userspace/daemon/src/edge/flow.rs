//! The flow of registrations: a line in the log and an event per step, by
//! private identity, with suite, mode and SPIs. No keys, no bodies.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use gm_api::control::FlowEvent;
use gm_api::sad::SaRow;
use gm_sip::edge::FlowEvent as Step;
use gm_sip::{SaSetRequest, SetToken};

/// Sources of unfinished registrations that are remembered.
const SOURCES: usize = 16_384;

/// Lines a second about what anybody can cause; the others are only counted.
const LINES: u32 = 50;

/// What is known of the sets.
#[derive(Default)]
pub struct Flow {
    sets: HashMap<SetToken, About>,
    /// Who asked from where, to name those who are refused.
    asked: HashMap<SocketAddr, Arc<str>>,
    /// Whose the sets are that are not installed yet.
    chosen: HashMap<SetToken, Arc<str>>,
    /// Registered sets by private identity: there are many sets, and after every message
    /// somebody asks how many registrations there are.
    live: HashMap<Arc<str>, Vec<SetToken>>,
    /// Messages that were refused, by the reason's word.
    refusals: BTreeMap<String, u64>,
    lines: Lines,
}

/// Lines about strangers in the second that runs.
#[derive(Default)]
struct Lines {
    second: u64,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// Whether one more may be written at `now`, in milliseconds.
    fn room(&mut self, now: u64) -> bool {
        if self.second != now / 1000 {
            if self.left_out > 0 {
                let lines = self.left_out;
                tracing::warn!(target: "gmespd::flow", lines, "left out: too many strangers");
            }
            *self = Lines {
                second: now / 1000,
                ..Lines::default()
            };
        }
        if self.written < LINES {
            self.written += 1;
            return true;
        }
        self.left_out += 1;
        false
    }
}

#[derive(Clone, Default)]
struct About {
    number: Option<u64>,
    impi: Option<Arc<str>>,
    suite: String,
    mode: String,
    spis: BTreeMap<String, u32>,
    registered: bool,
    /// Its removal was carried out, and told.
    removed: bool,
    told: bool,
}

impl About {
    /// Notes whether the set of that name carries a registration.
    fn register(&mut self, set: SetToken, yes: bool, live: &mut HashMap<Arc<str>, Vec<SetToken>>) {
        if std::mem::replace(&mut self.registered, yes) == yes {
            return;
        }
        let impi = self.impi.clone().unwrap_or_else(|| "".into());
        if yes {
            live.entry(impi).or_default().push(set);
        } else if let Some(sets) = live.get_mut(&impi) {
            sets.retain(|other| *other != set);
            if sets.is_empty() {
                live.remove(&impi);
            }
        }
    }
}

impl Flow {
    /// A set was installed, as the set with this number.
    pub fn installed(&mut self, request: &SaSetRequest, number: u64) {
        let params = &request.params;
        let [first, _] = &request.inbound;
        let row = SaRow::from_spec(first);
        let (ue, pcscf) = (params.ue_ends, params.pcscf_ends);
        let spis = [
            ("uc", ue.spi_c),
            ("us", ue.spi_s),
            ("pc", pcscf.spi_c),
            ("ps", pcscf.spi_s),
        ];
        let about = About {
            number: Some(number),
            impi: self.chosen.remove(&request.token),
            suite: format!("{}/{}", row.alg, row.ealg),
            mode: row.mode,
            spis: spis
                .iter()
                .map(|(name, spi)| ((*name).to_owned(), *spi))
                .collect(),
            ..About::default()
        };
        self.sets.insert(request.token, about);
    }

    /// The number of a set that is installed.
    pub fn number(&self, set: SetToken) -> Option<u64> {
        self.sets.get(&set)?.number
    }

    /// A set is gone. It is forgotten when that was told, too.
    pub fn removed(&mut self, set: SetToken) {
        self.forget(set, |about| about.removed = true);
    }

    fn forget(&mut self, set: SetToken, mark: impl FnOnce(&mut About)) {
        if let Some(about) = self.sets.get_mut(&set) {
            mark(about);
            about.register(set, false, &mut self.live);
            if about.removed && about.told {
                self.sets.remove(&set);
            }
        }
    }

    /// Private identities with a registration that is live.
    pub fn registrations(&self) -> usize {
        self.live.len()
    }

    /// Messages that were refused since the start, by the reason's word.
    pub fn refusals(&self) -> &BTreeMap<String, u64> {
        &self.refusals
    }

    /// A step: the event to tell. `None`: not one for people.
    pub fn step(&mut self, step: &Step) -> Option<FlowEvent> {
        let event = match step {
            Step::Sm1 {
                impi,
                ue,
                over,
                nat,
            } => {
                if self.asked.len() >= SOURCES {
                    self.asked.clear();
                }
                self.asked.insert(*ue, impi.clone());
                FlowEvent {
                    impi: (!impi.is_empty()).then(|| impi.to_string()),
                    ue: Some(ue.to_string()),
                    set: over.and_then(|set| self.number(set)),
                    reason: nat.then(|| "behind a NAT".into()),
                    ..named("SM1")
                }
            }
            Step::Sm4 {
                set, impi, suite, ..
            } => {
                if suite.is_legacy() {
                    tracing::warn!(
                        target: "gmespd::flow",
                        impi = &**impi,
                        %suite,
                        "a suite of older releases is used: edge.legacy_suites allows it"
                    );
                }
                self.chosen.insert(*set, impi.clone());
                return None;
            }
            Step::Sm8 { .. } => return None,
            Step::Sm6 { set, ue } => FlowEvent {
                ue: Some(ue.to_string()),
                status: Some(401),
                ..self.about(*set, "SM6")
            },
            Step::Sm7 { set, ue } => FlowEvent {
                ue: Some(ue.to_string()),
                ..self.about(*set, "SM7")
            },
            Step::Sm12 { set, ue, expires } => {
                if let Some(about) = self.sets.get_mut(set) {
                    about.register(*set, true, &mut self.live);
                }
                FlowEvent {
                    ue: Some(ue.to_string()),
                    status: Some(200),
                    reason: Some(format!("registered for {expires} s")),
                    ..self.about(*set, "SM12")
                }
            }
            Step::Refreshed { set, expires } => FlowEvent {
                reason: Some(format!("registered for {expires} s, without a challenge")),
                ..self.about(*set, "refreshed")
            },
            Step::Deregistered { impi } => {
                for set in self.live.remove(impi).unwrap_or_default() {
                    if let Some(about) = self.sets.get_mut(&set) {
                        about.registered = false;
                    }
                }
                FlowEvent {
                    impi: Some(impi.to_string()),
                    ..named("deregistered")
                }
            }
            Step::SwitchedOver { from, to } => FlowEvent {
                reason: self
                    .number(*from)
                    .map(|from| format!("instead of set {from}")),
                ..self.about(*to, "switched-over")
            },
            Step::Removed { set, why } => {
                let event = FlowEvent {
                    reason: Some(format!("{why:?}").to_lowercase()),
                    ..self.about(*set, "removed")
                };
                self.chosen.remove(set);
                self.forget(*set, |about| about.told = true);
                event
            }
            Step::Refused { from, why, offered } => {
                *self.refusals.entry(why.word()).or_default() += 1;
                let explain = match offered {
                    Some(offered) => format!("{}; the phone offers {offered}", why.explain()),
                    None => why.explain(),
                };
                FlowEvent {
                    ue: Some(from.to_string()),
                    impi: self.asked.get(from).map(|impi| impi.to_string()),
                    status: why.status().map(|(status, _)| status),
                    reason: Some(why.to_string()),
                    explain: Some(explain),
                    ..named("refused")
                }
            }
        };
        Some(event)
    }

    /// Writes the step into the log; of those that strangers cause only so many.
    pub fn log(&mut self, step: &Step, event: &FlowEvent, now: u64) {
        let strangers = matches!(step, Step::Sm1 { over: None, .. } | Step::Refused { .. });
        if !strangers || self.lines.room(now) {
            log(event);
        }
    }

    fn about(&self, set: SetToken, step: &str) -> FlowEvent {
        let about = self.sets.get(&set).cloned().unwrap_or_default();
        FlowEvent {
            impi: about.impi.map(|impi| impi.to_string()),
            suite: Some(about.suite).filter(|suite| !suite.is_empty()),
            mode: Some(about.mode).filter(|mode| !mode.is_empty()),
            set: about.number,
            spis: about.spis,
            ..named(step)
        }
    }
}

fn named(step: &str) -> FlowEvent {
    FlowEvent {
        step: step.into(),
        ..FlowEvent::default()
    }
}

/// The step as a line in the log. Identities come from strangers: the log
/// writes them in quotes and with escapes.
fn log(event: &FlowEvent) {
    let spis: Vec<String> = event
        .spis
        .iter()
        .map(|(name, spi)| format!("{name}={spi}"))
        .collect();
    tracing::info!(
        target: "gmespd::flow",
        impi = event.impi,
        ue = event.ue,
        suite = event.suite,
        mode = event.mode,
        set = event.set,
        spis = (!spis.is_empty()).then(|| spis.join(" ")),
        status = event.status,
        reason = event.reason,
        explain = event.explain,
        "{}",
        event.step
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(set: u64) -> SaSetRequest {
        let ends = |n: u32| gm_sip::sec_agree::Ends {
            spi_c: 1000 * n,
            spi_s: 1000 * n + 1,
            port_c: 5064,
            port_s: 5063,
        };
        let params = gm_sip::sa_set::SetParams {
            ue: [192, 0, 2, 1].into(),
            pcscf: [192, 0, 2, 2].into(),
            ue_ends: ends(1),
            pcscf_ends: ends(2),
            suite: gm_esp::Suite::NullAesGcm,
            tunnel: None,
            replay_window: 64,
        };
        let (ik, ck) = (
            gm_esp::Ik::from_bytes([1; 16]),
            gm_esp::Ck::from_bytes([2; 16]),
        );
        SaSetRequest::new(SetToken(set), gm_sip::Role::Pcscf, params, ik, ck)
    }

    #[test]
    fn registrations_are_counted_by_identity() {
        let mut flow = Flow::default();
        for (n, impi) in [(1, "a"), (2, "b"), (3, "a")] {
            let set = SetToken(n);
            let ue: SocketAddr = "192.0.2.1:5060".parse().unwrap();
            flow.step(&Step::Sm4 {
                set,
                impi: impi.into(),
                suite: gm_esp::Suite::NullAesGcm,
                mode: gm_esp::Mode::Trans,
            });
            flow.installed(&request(n), n);
            // A second registration is asked for and answered on other ports.
            let event = flow.step(&Step::Sm6 { set, ue }).unwrap();
            assert_eq!(event.impi.as_deref(), Some(impi));
            let expires = 1;
            flow.step(&Step::Sm12 { set, ue, expires });
        }
        assert_eq!(flow.registrations(), 2);
        for (set, left) in [(1, 2), (2, 1), (3, 0)] {
            flow.removed(SetToken(set));
            assert_eq!(flow.registrations(), left);
        }
        let impi = "a".into();
        flow.step(&Step::Deregistered { impi });
        assert_eq!(flow.registrations(), 0);
    }

    #[test]
    fn strangers_do_not_fill_the_log() {
        let mut lines = Lines::default();
        let written = (0..1000).filter(|_| lines.room(7_999)).count();
        assert_eq!((written, lines.left_out), (50, 950));
        assert!(lines.room(8_000) && lines.left_out == 0);
    }
}
