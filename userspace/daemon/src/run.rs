//! `gmespd run`: puts the parts together, waits, and takes them apart again.

use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use crossbeam::channel::Receiver;
use gm_api::control::FlowEvent;
use gm_dataplane::Event;
use gm_home::Subscriber;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{Config, PlaneKind};
use crate::control::{self, App, Token};
use crate::door;
use crate::edge;
use crate::events::Events;
use crate::harden;
use crate::home;
use crate::notify::notify;
use crate::running::{self, Running};
use crate::sets::Sets;
use crate::socket::ControlSocket;

/// Threads for requests that wait for a worker. Each has a locked stack.
const BLOCKING_THREADS: usize = 8;

/// Why the daemon ends.
enum End {
    Signal(&'static str),
    StdinClosed,
    WorkerStopped(String),
    EdgeDied,
}

/// Runs until a signal comes, or until stdin closes where that is wanted.
pub fn run(config: Config, subscribers: Vec<Subscriber>, until_stdin_closes: bool) -> Result<()> {
    tracing::info!("engine: {}", config.choose_engine()?);
    // All that needs root's rights over files comes first.
    let group = config.control.group.as_deref();
    let (socket, listener) =
        ControlSocket::bind(&config.control.socket, config.control.mode_bits()?, group)?;
    let http = Http::open(&config)?;
    harden::drop_capabilities(config.gm.data_plane, running::pin_dir(&config))
        .context("capabilities cannot be dropped")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("gm-control")
        .enable_all()
        .build()
        .context("the async runtime does not start")?;
    // Before there is anything to take apart, so that no signal is missed.
    let (end, mut ends) = mpsc::unbounded_channel();
    runtime.block_on(async { watch_signals(&end) })?;
    if until_stdin_closes {
        watch_stdin(end.clone())?;
    }

    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let plane = Running::start(&config).context("the data plane does not start")?;
    if let (Some(table), Some(domain)) = (&config.home, config.home_domain()) {
        let edge = config.edge.as_ref().filter(|edge| edge.speaks_sip());
        let edge = edge
            .filter(|edge| edge.home.is_some())
            .map(|edge| edge.core());
        home::start(table, edge, domain, subscribers, runtime.handle())?;
    }
    let result = serve(&config, &runtime, (listener, http), &plane, end, &mut ends);
    let stopped = match &result {
        Ok(()) => plane
            .shutdown()
            .context("the data plane has not gone cleanly"),
        // Nobody has asked for the policy to go: fail closed (ARCHITECTURE, rule 5).
        Err(_) => {
            plane.leave_in_force();
            Ok(())
        }
    };
    drop(socket);
    // A streaming client must not keep the daemon.
    runtime.shutdown_background();
    result.and(stopped)
}

fn serve(
    config: &Config,
    runtime: &tokio::runtime::Runtime,
    (listener, http): (std::os::unix::net::UnixListener, Option<Http>),
    plane: &Running,
    end: mpsc::UnboundedSender<End>,
    ends: &mut mpsc::UnboundedReceiver<End>,
) -> Result<()> {
    let sets = Sets::new(plane.plane());
    let app = App::new(config.clone(), sets, Events::new());
    watch_plane(plane.events(), Arc::clone(&app), end)?;
    let edge = edge::start(&app, runtime.handle())?;
    if let Some(door) = door::start(&app)? {
        app.open(door);
    }
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener).context("the control socket")?;
        let server = tokio::spawn(control::serve(Arc::clone(&app), listener));
        let http = match http {
            Some(http) => {
                let listener = TcpListener::from_std(http.listener).context("[control] http")?;
                let app = Arc::clone(&app);
                Some(tokio::spawn(control::serve_tcp(app, listener, http.token)))
            }
            None => None,
        };
        ready(config)?;
        let end = tokio::select! {
            end = ends.recv() => end,
            () = app.edge_died.notified() => Some(End::EdgeDied),
        };
        tell_manager("STOPPING=1");
        app.stop();
        drop(edge);
        for server in [Some(server), http].into_iter().flatten() {
            server
                .await
                .context("the control server has failed")?
                .context("the control server")?;
        }
        let closing = Arc::clone(&app);
        tokio::task::spawn_blocking(move || closing.stop_capture()).await?;
        if matches!(end, Some(End::Signal(_) | End::StdinClosed)) {
            let closing = Arc::clone(&app);
            let back = move || closing.migration.give_all_back(&closing);
            let back = tokio::task::spawn_blocking(back).await?;
            back.context(
                "SAs that were taken over cannot be given back, and what is protected stays so",
            )?;
        }
        match end {
            Some(End::Signal(name)) => tracing::info!("{name}: stopping"),
            Some(End::StdinClosed) => tracing::info!("stdin has closed: stopping"),
            Some(End::WorkerStopped(why)) => bail!("no worker is left: {why}"),
            Some(End::EdgeDied) => bail!("the SIP edge has failed"),
            None => {}
        }
        Ok(())
    })
}

/// The control interface over loopback TCP.
struct Http {
    listener: std::net::TcpListener,
    token: Token,
}

impl Http {
    /// Reads the token and takes the port, where the configuration has them.
    fn open(config: &Config) -> Result<Option<Http>> {
        let control = &config.control;
        let (Some(at), Some(file)) = (control.http, &control.token_file) else {
            return Ok(None);
        };
        let token = Token::read(file).context("[control] token_file")?;
        let listener = std::net::TcpListener::bind(at)
            .with_context(|| format!("[control] http: {at} cannot be listened on"))?;
        listener.set_nonblocking(true).context("[control] http")?;
        Ok(Some(Http { listener, token }))
    }
}

/// One line for people, and the service manager's message.
fn ready(config: &Config) -> Result<()> {
    let addresses: Vec<String> = config
        .gm
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    let line = format!(
        "gmespd is ready: {}, addresses {}, control socket {}",
        match config.gm.data_plane {
            PlaneKind::Xdp => format!("uplink {}", config.gm.uplinks.join(", ")),
            PlaneKind::Kernel => "data plane kernel".to_owned(),
        },
        addresses.join(", "),
        config.control.socket.display(),
    );
    tracing::info!("{line}");
    // Nobody may be reading; that is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{line}");
    tell_manager("READY=1");
    Ok(())
}

fn tell_manager(state: &str) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "the service manager does not hear {state}");
    }
}

fn watch_signals(end: &mpsc::UnboundedSender<End>) -> Result<()> {
    for (kind, name) in [
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::interrupt(), "SIGINT"),
        (SignalKind::hangup(), "SIGHUP"),
    ] {
        let mut stream = signal(kind).with_context(|| format!("{name} cannot be watched"))?;
        let end = end.clone();
        tokio::spawn(async move {
            if stream.recv().await.is_some() {
                // The receiver gone: the daemon stops already.
                let _ = end.send(End::Signal(name));
            }
        });
    }
    Ok(())
}

fn watch_stdin(end: mpsc::UnboundedSender<End>) -> Result<()> {
    std::thread::Builder::new()
        .name("gm-stdin".into())
        .spawn(move || {
            let mut buffer = [0; 256];
            while std::io::stdin().read(&mut buffer).is_ok_and(|n| n > 0) {}
            let _ = end.send(End::StdinClosed);
        })
        .map(drop)
        .context("a thread does not start")
}

/// Logs what the data plane says and passes it on, until it has shut down.
fn watch_plane(
    events: Receiver<Event>,
    app: Arc<App>,
    end: mpsc::UnboundedSender<End>,
) -> Result<()> {
    std::thread::Builder::new()
        .name("gm-events".into())
        .spawn(move || {
            for event in events {
                let number = |id: gm_dataplane::SetId| app.sets.number_of(id.0).unwrap_or(id.0);
                let mut flow = FlowEvent::default();
                match event {
                    Event::EncapPortLearned { set, port } => {
                        flow.step = "encap-port".into();
                        flow.set = Some(number(set));
                        flow.reason = Some(format!("the NAT's port is {port}"));
                    }
                    Event::PathMtu { set, spi, mtu } => {
                        flow.step = "path-mtu".into();
                        flow.set = Some(number(set));
                        let what = "a router on the way takes packets of at most";
                        flow.reason = Some(format!("SPI {spi}: {what} {mtu} bytes"));
                    }
                    Event::SeqLow {
                        set,
                        spi,
                        remaining,
                    } => {
                        flow.step = "seq-low".into();
                        flow.set = Some(number(set));
                        flow.reason = Some(format!("SPI {spi}: {remaining} sequence numbers left"));
                    }
                    Event::Exhausted { set, spi } => {
                        flow.step = "seq-exhausted".into();
                        flow.set = Some(number(set));
                        flow.reason = Some(format!("SPI {spi} sends no more"));
                    }
                    Event::WorkerRestarted { worker, why } => {
                        flow.step = "worker-restarted".into();
                        flow.reason = Some(format!("worker {worker}: {why}"));
                    }
                    Event::WorkerGone { worker, why } => {
                        flow.step = "worker-gone".into();
                        let what = "failed too often, the others have its work";
                        flow.reason = Some(format!("worker {worker} has {what}: {why}"));
                    }
                    Event::UplinkGone => {
                        flow.step = "uplink-gone".into();
                        flow.reason = Some("what is protected is dropped until it is back".into());
                    }
                    Event::UplinkBack => flow.step = "uplink-back".into(),
                    Event::WorkerStopped { worker, why } => {
                        let _ = end.send(End::WorkerStopped(format!("worker {worker}: {why}")));
                        continue;
                    }
                    other => {
                        tracing::warn!(?other, "data plane");
                        continue;
                    }
                }
                tracing::info!(
                    set = flow.set,
                    step = flow.step,
                    reason = flow.reason,
                    "data plane"
                );
                app.events.send(flow);
            }
        })
        .map(drop)
        .context("a thread does not start")
}
