//! The load balancer: arguments, configuration, services, run.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access_log::{AccessLog, AccessLogParams, AccessLogWriter, Destination};
use crate::admin::Admin;
use crate::config::{Config, ConfigError};
use crate::control::{Control, PhaseSwitch};
use crate::door::{Connections, Departures, Guard};
use crate::events::Events;
use crate::explain::Explanations;
use crate::health::{self, HealthFile};
use crate::lifecycle::{self, Lifecycle};
use crate::metrics::{Count, Process, ProxyCounters};
use crate::proxy::{self, Proxy};
use anyhow::{Context as _, Result};
use async_trait::async_trait;
use clap::Parser;
use parking_lot::Mutex;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use pingora::services::listening::Service;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

/// Our own news, and only warnings of others. `pingora_proxy` and `http::v1` warn of single requests, which is the
/// access log's part, `pingora_load_balancing` of every sick backend at every change, and `warp` of everybody who
/// leaves an admin page before its end. `connectors` calls it an error when a connection is taken from the pool in the
/// same moment in which its watch there lets go of it: another one is made then, and nothing is lost.
const LOG_FILTER: &str = "warn,warp=off,pingora_proxy=off,pingora_core::protocols::http::v1=off,\
    pingora_core::connectors=off,pingora_load_balancing=off,maitred=info";

/// Where the configuration says `null`, which is Pingora's own default.
const PINGORA_GRACE_SECONDS: u64 = 300;

/// How much later than ours Pingora's grace ends.
const PINGORA_LATER: Duration = Duration::from_secs(60);

/// Per client connection. Reads fit most requests whole; a write buffer below one segment costs
/// another send per answer.
const BUFFER_READ: usize = 2048;
const BUFFER_WRITE: usize = 1460;

/// A load balancer for backends that can take only so much at once.
#[derive(Parser)]
#[command(name = "proxy", version)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, default_value = "conf/pingora.yaml")]
    conf: PathBuf,
    /// Check the configuration and exit: 0 if it is right, 78 if not.
    #[arg(short, long)]
    test: bool,
}

/// The program: runs until it is told to stop, and says how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(arguments);
    lifecycle::log_to_stderr(LOG_FILTER);
    let config = match Config::load(&arguments.conf) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if arguments.test {
        println!("{}: the configuration is right", arguments.conf.display());
        return ExitCode::SUCCESS;
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{}", error.report("proxy"));
    ExitCode::from(ConfigError::EXIT_CODE)
}

fn serve(config: Config) -> Result<()> {
    let begun = Instant::now();
    let process = Arc::new(Process::new(config.fingerprint()));
    let config = Arc::new(config);
    raise_open_file_limit();
    // A daemon changes its working directory.
    let file = HealthFile::open(std::path::absolute(&config.health.file)?);
    let events = Events::default();
    let counters = proxy::counters();
    let control = start_control(config.clone(), &file, counters.clone(), events.clone())?;
    let current = control.current();
    let connections = Connections::new(counters.clone());
    let (departures, departures_poll) = Departures::new().context("watching clients")?;
    let (access_log, writer) = open_access_log(&config.access_log, counters.log_dropped.clone())?;
    let phase = PhaseSwitch::new();
    let grace = grace(&config);
    let lifecycle = Lifecycle::new(
        current.clone(),
        connections.clone(),
        access_log.clone(),
        phase.clone(),
        grace,
        events.clone(),
    );
    let shutdown_signal = lifecycle.signal_watch();

    let explanations = Explanations::new(config.explain.capacity);
    let mut server = server(&config, grace);
    let proxy = Proxy::new(
        current.clone(),
        departures.clone(),
        access_log.clone(),
        phase.watch(),
        counters.clone(),
        explanations.clone(),
    );
    let proxy = pingora_proxy::http_proxy(&server.configuration, proxy);
    let guard = Guard::new(proxy, config.clients.clone(), connections);
    server.add_service(door(guard, &config)?);
    let admin = Admin {
        begun,
        current,
        phase: phase.watch(),
        counters,
        process,
        events: events.clone(),
        explanations,
    };
    server.add_service(task(
        "admin",
        serve_admin(admin, listen(config.admin.bind)?),
    ));
    server.add_service(task(
        "control",
        control_health(control, file, events.clone()),
    ));
    let listeners = config
        .listeners
        .iter()
        .map(|listener| listener.bind)
        .collect();
    server.add_service(task("lifecycle", lifecycle.run(listeners)));
    let reopening = lifecycle::reopen_at_signal(access_log.clone());
    server.add_service(task("access-log", reopening));
    let threads = start_threads(departures, departures_poll, writer);
    server.add_service(task("threads", threads));
    server.run(RunArgs { shutdown_signal });
    Ok(())
}

/// How long a proxy that is stopped goes on serving.
fn grace(config: &Config) -> Duration {
    let seconds = config.server.grace_period_seconds;
    Duration::from_secs(seconds.unwrap_or(PINGORA_GRACE_SECONDS))
}

/// Pingora's server, without services yet.
fn server(config: &Config, grace: Duration) -> Server {
    let mut conf = config.server.server_conf();
    // Pingora kills what still runs when its own grace ends: after ours, which ends the process.
    conf.grace_period_seconds = Some((grace + PINGORA_LATER).as_secs());
    let is_waited_for = conf.daemon && conf.daemon_wait_for_ready;
    let mut server = Server::new_with_opt_and_conf(None, conf);
    // As a service, or a parent that waits for its daemon would never hear from it.
    let bootstrap = server.bootstrap_as_a_service();
    if is_waited_for {
        let parent = server.add_service(background_service("parent", lifecycle::Parent::this()));
        bootstrap.add_dependency(&parent);
    }
    server
}

/// Decides everything once, before Pingora and its threads are there.
fn start_control(
    config: Arc<Config>,
    file: &HealthFile,
    counters: Arc<ProxyCounters>,
    events: Events,
) -> Result<Control> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let start = Control::start(config, file.latest().clone(), counters, events);
    let control = runtime.block_on(start);
    // Not waiting for a resolver that hangs.
    runtime.shutdown_background();
    Ok(control)
}

fn open_access_log(
    params: &AccessLogParams,
    dropped: Arc<Count>,
) -> Result<(AccessLog, Option<AccessLogWriter>)> {
    let mut params = params.clone();
    if let Destination::File(path) = &mut params.destination {
        // A daemon changes its working directory.
        *path = std::path::absolute(&*path)?;
    }
    Ok(AccessLog::open(params, dropped)?)
}

/// The listeners. Pingora would try for half a minute and then panic on an address that is taken, so
/// each is tried first.
fn door(
    guard: Guard<pingora_proxy::HttpProxy<Proxy>>,
    config: &Config,
) -> Result<Service<Guard<pingora_proxy::HttpProxy<Proxy>>>> {
    let mut service = Service::new("proxy".into(), guard);
    for listener in &config.listeners {
        drop(listen(listener.bind)?);
        let buffers = L4BufferSettings::new(BUFFER_READ, BUFFER_WRITE);
        service.add_listener(ListenerConfig::tcp(listener.bind.to_string()).l4_buffer(buffers));
    }
    Ok(service)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve_admin(admin: Admin, listener: TcpListener) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => admin.serve(listener).await,
        Err(error) => tracing::error!(%error, "no admin pages"),
    }
}

async fn control_health(control: Control, file: HealthFile, events: Events) {
    let (publish, news) = watch::channel(file.latest().clone());
    tokio::join!(health::watch(file, publish, events), control.run(news));
}

/// For work that blocks.
async fn start_threads(
    departures: Arc<Departures>,
    departures_poll: mio::Poll,
    writer: Option<AccessLogWriter>,
) {
    thread("departures", move || {
        if let Err(error) = departures.run(departures_poll) {
            tracing::error!(%error, "clients that leave while they wait go unnoticed");
        }
    });
    if let Some(writer) = writer {
        thread("access-log", move || writer.run());
    }
}

/// Client and backend connections are as many as the system allows.
fn raise_open_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the open-file limit stays as it is");
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(work) {
        tracing::error!(%error, name, "no thread");
    }
}

/// A Pingora service out of a future. Nothing may run before Pingora does, because it may fork.
fn task(
    name: &str,
    future: impl Future<Output = ()> + Send + 'static,
) -> impl pingora::services::ServiceWithDependents {
    background_service(name, Task(Mutex::new(Some(Box::pin(future)))))
}

struct Task<F>(Mutex<Option<F>>);

#[async_trait]
impl<F: Future<Output = ()> + Unpin + Send + 'static> BackgroundService for Task<F> {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let future = self.0.lock().take();
        if let Some(future) = future {
            future.await;
        }
    }
}
