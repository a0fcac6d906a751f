//! The steps of `gm-ue register`.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc;
use tokio::time::{Instant as Moment, timeout_at};

use super::Args;
use super::outcome::{Failure, Outcome, Received, Registered, Sent};
use crate::agent::Agent;
use crate::config::Config;
use crate::events::{Command, UeEvent};

/// Whether the phone begins again by itself is told right after a failure.
const ASIDE: Duration = Duration::from_millis(100);

/// Does what `args` say, until all is done, something fails, or `stop` is: then the
/// phone leaves as well as it can in a moment.
pub(super) async fn play(
    agent: &mut Agent,
    config: &Config,
    args: &Args,
    tell: bool,
    stop: impl Future<Output = ()>,
) -> Result<Outcome> {
    let (commands, mut orders) = mpsc::channel(4);
    let (news, events) = mpsc::unbounded_channel();
    let mut script = Script {
        commands,
        events,
        outcome: Outcome {
            faults: args.faults.iter().map(ToString::to_string).collect(),
            ..Outcome::default()
        },
        patience: Duration::from_secs_f64(args.timeout),
        asked: Instant::now(),
        retries: config.habits.retries > 0,
        told: tell,
    };
    let running = agent.run(&mut orders, move |event| {
        // The script has ended.
        let _ = news.send(event);
    });
    tokio::select! {
        ran = running => {
            ran?;
            bail!("the phone has ended by itself")
        }
        ended = script.until_stopped(config, args, stop) => {
            let mut outcome = script.outcome;
            outcome.failure = ended.err();
            outcome.ok = outcome.failure.is_none();
            Ok(outcome)
        }
    }
}

/// Strangers decide how many there are: so many are told.
const IGNORED: usize = 32;
/// The network decides how many there are: so many are kept.
const KEPT: usize = 1000;
/// How long a de-registration may take when a signal ends it all.
const LEAVE: Duration = Duration::from_secs(2);

struct Script {
    commands: mpsc::Sender<Command>,
    events: mpsc::UnboundedReceiver<UeEvent>,
    outcome: Outcome,
    patience: Duration,
    /// When the command that runs was given.
    asked: Instant,
    retries: bool,
    told: bool,
}

fn failure(step: &str, reason: impl Into<String>) -> Failure {
    Failure {
        step: step.into(),
        reason: reason.into(),
    }
}

impl Script {
    async fn until_stopped(
        &mut self,
        config: &Config,
        args: &Args,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        tokio::select! {
            ended = self.steps(config, args) => return ended,
            () = stop => {}
        }
        if !args.stay {
            (self.patience, self.retries) = (LEAVE, false);
            // Whoever was not registered, or is in the middle of it, just goes.
            let _ = self.leave().await;
        }
        Err(failure("stop", "ended by a signal"))
    }

    async fn steps(&mut self, config: &Config, args: &Args) -> Result<(), Failure> {
        self.register("register", Command::Register).await?;
        if let Some(text) = &args.message {
            let echo = || format!("sip:echo@{}", config.domain);
            let to = args.to.clone().unwrap_or_else(echo);
            self.message(to, text.clone()).await?;
        }
        if let Some(seconds) = args.expect {
            self.expect(Duration::from_secs_f64(seconds)).await?;
        }
        for _ in 0..args.again {
            self.stay("again", Duration::from_secs_f64(args.every))
                .await?;
            let again = match args.clear {
                true => Command::RegisterInClear,
                false => Command::Register,
            };
            self.register("again", again).await?;
        }
        self.stay("hold", Duration::from_secs_f64(args.hold))
            .await?;
        match args.stay {
            true => Ok(()),
            false => self.leave().await,
        }
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        self.order("deregister", Command::Deregister).await?;
        self.until("deregister", |_, event| *event == UeEvent::Deregistered)
            .await
    }

    async fn register(&mut self, step: &str, command: Command) -> Result<(), Failure> {
        self.order(step, command).await?;
        self.until(step, |_, event| matches!(event, UeEvent::Registered { .. }))
            .await
    }

    async fn message(&mut self, to: String, text: String) -> Result<(), Failure> {
        self.order("message", Command::Message { to, text }).await?;
        self.until("message", |_, event| {
            matches!(event, UeEvent::MessageSent { .. })
        })
        .await?;
        match self.outcome.message.as_ref().map(|sent| sent.status) {
            Some(200..300) => Ok(()),
            status => Err(failure(
                "message",
                format!("answered with {}", status.unwrap_or(408)),
            )),
        }
    }

    async fn expect(&mut self, wait: Duration) -> Result<(), Failure> {
        let patience = std::mem::replace(&mut self.patience, wait);
        let came = match self.outcome.received.is_empty() {
            false => Ok(()),
            true => {
                self.until("expect", |_, event| {
                    matches!(event, UeEvent::MessageReceived { .. })
                })
                .await
            }
        };
        self.patience = patience;
        came.map_err(|_| failure("expect", "no MESSAGE came from the network"))
    }

    /// Time passes; a registration that is lost meanwhile is a failure.
    async fn stay(&mut self, step: &str, wait: Duration) -> Result<(), Failure> {
        let end = Moment::now() + wait;
        while let Ok(event) = timeout_at(end, self.events.recv()).await {
            let event = event.ok_or_else(|| failure(step, "the phone has ended"))?;
            if matches!(&event, UeEvent::Flow { message, .. } if message == "SM1") {
                // A renewal that nobody has ordered: its time begins here.
                self.asked = Instant::now();
            }
            self.note(&event);
            self.judge(step, event).await?;
        }
        Ok(())
    }

    async fn order(&mut self, step: &str, command: Command) -> Result<(), Failure> {
        self.asked = Instant::now();
        let given = self.commands.send(command).await;
        given.map_err(|_| failure(step, "the phone has ended"))
    }

    /// Until an event is the one, or a failure that is final.
    async fn until(
        &mut self,
        step: &str,
        is_it: impl Fn(&Script, &UeEvent) -> bool,
    ) -> Result<(), Failure> {
        let mut end = Moment::now() + self.patience;
        loop {
            let event = match timeout_at(end, self.events.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => return Err(failure(step, "the phone has ended")),
                Err(_) => return Err(failure(step, "it did not happen in time")),
            };
            self.note(&event);
            if is_it(self, &event) {
                return Ok(());
            }
            if let Some(wait) = self.judge(step, event).await? {
                end = Moment::now() + wait + self.patience;
            }
        }
    }

    /// A failure is final unless the phone begins again by itself; then its wait.
    async fn judge(&mut self, step: &str, event: UeEvent) -> Result<Option<Duration>, Failure> {
        let reason = match event {
            UeEvent::Failed { reason } => reason,
            UeEvent::Deregistered => "the network has de-registered the phone".into(),
            _ => return Ok(None),
        };
        let aside = Moment::now() + ASIDE;
        while self.retries {
            let Ok(Some(event)) = timeout_at(aside, self.events.recv()).await else {
                break;
            };
            self.note(&event);
            if let UeEvent::Again { wait_ms } = event {
                return Ok(Some(Duration::from_millis(wait_ms)));
            }
        }
        Err(failure(step, reason))
    }

    fn note(&mut self, event: &UeEvent) {
        let ms = self.asked.elapsed().as_micros() as f64 / 1000.0;
        match event {
            UeEvent::Registered {
                suite,
                mode,
                public_address,
                ports,
                spis,
                expires,
                authenticated,
            } if self.outcome.registrations.len() < KEPT => {
                self.outcome.registrations.push(Registered {
                    suite: suite.clone(),
                    mode: mode.clone(),
                    public_address: *public_address,
                    ports: *ports,
                    spis: *spis,
                    expires: *expires,
                    authenticated: *authenticated,
                    ms,
                })
            }
            UeEvent::MessageSent { status } => {
                self.outcome.message = Some(Sent {
                    status: *status,
                    ms,
                });
            }
            UeEvent::MessageReceived {
                from,
                body,
                transport,
            } if self.outcome.received.len() < KEPT => self.outcome.received.push(Received {
                from: from.clone(),
                body: body.clone(),
                transport: transport.clone(),
            }),
            UeEvent::Again { .. } => self.outcome.retries += 1,
            UeEvent::Ignored { reason } if self.outcome.ignored.len() < IGNORED => {
                self.outcome.ignored.push(reason.clone());
            }
            UeEvent::Deregistered => self.outcome.deregistered = true,
            UeEvent::Lost | UeEvent::Failed { .. } if self.told => {
                let _ = writeln!(std::io::stdout(), "            {event}");
            }
            _ => {}
        }
    }
}
