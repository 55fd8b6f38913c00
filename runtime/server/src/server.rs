//! The wiring: what a server is made of, its routes, its background work, and
//! how it starts and stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::http::{Method, Uri};
use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use firebox_registry::{Registry, RegistryError};
use firebox_sandbox::{Pooling, Sandbox, SandboxConfig, SandboxError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::cache::ResponseCache;
use crate::config::Config;
use crate::connections::{self, Door};
use crate::cost::{Costs, SAVE_EVERY};
use crate::gateway::{Gateway, InstanceCaps};
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::openapi;
use crate::problem::Failure;
use crate::protocol::{
    control, cost, grpc, handler, invoke, jobs, residency, rollout as rollouts, traffic, v2,
    versions,
};
use crate::realtime;
use crate::residency::Residency;
use crate::rollout::{self, Rollouts};
use crate::routing::Routing;
use crate::scheduler::{Scheduler, panic_text};
use crate::shadow::Shadow;

/// How often histograms are folded and waiting compute is sampled.
const UPKEEP: Duration = Duration::from_secs(5);

/// A server can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory can't be opened; in use by another server, for one.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The sandbox can't be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Threads or files of the server's own.
    #[error("the server can't be set up")]
    Io(#[from] std::io::Error),
}

/// Everything that handlers reach.
pub struct App {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) sandbox: Sandbox,
    pub(crate) routing: Arc<Routing>,
    pub(crate) residency: Residency,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) gateway: Gateway,
    pub(crate) cache: ResponseCache,
    pub(crate) costs: Costs,
    pub(crate) rollouts: Rollouts,
    pub(crate) jobs: Jobs,
    pub(crate) metrics: Metrics,
    pub(crate) grpc: grpc::Rooms,
    /// Turns for checking uploads.
    pub(crate) uploads: Semaphore,
    /// Whether the server was told to stop.
    pub(crate) draining: AtomicBool,
}

impl App {
    /// Opens the data directory and makes all parts. Blocking.
    pub fn open(config: Config) -> Result<Self, ServerError> {
        let metrics = Metrics::new();
        let registry = Registry::open(&config.data)?;
        let cache = ResponseCache::new(config.cache_memory, metrics.clone());
        let routing = Routing::open(registry.clone(), cache.clone(), metrics.clone())?;
        let routing = Arc::new(routing);
        let sandbox = Sandbox::new(&SandboxConfig {
            // Uploads' dry runs, the shadow, jobs and what is kept have instances beside the
            // requests'.
            instances: slots(
                config.max_instances
                    + config.max_idle_instances
                    + 2 * config.max_uploads
                    + 1
                    + config.max_running_jobs * config.max_job_concurrency,
            ),
            idle: slots(config.max_idle_instances),
            spares: slots(config.max_spare_instances),
            memory: config.max_instance_memory,
            pooling: Pooling::Preferred,
            ..SandboxConfig::default()
        })?;
        let scheduler = Scheduler::start(
            config.compute_threads,
            config.max_compute_queue,
            metrics.clone(),
        )?;
        let scheduler = Arc::new(scheduler);
        let (store, wasm, counts) = (registry.clone(), sandbox.clone(), metrics.clone());
        let residency = Residency::new(&config, store, wasm, counts)?;
        let shadow = Shadow::start(
            residency.clone(),
            scheduler.clone(),
            metrics.clone(),
            InstanceCaps::new(&config),
        )?;
        let rollouts = Rollouts::open(registry.clone(), routing.clone(), metrics.clone())?;
        let gateway = Gateway::new(
            &config,
            routing.clone(),
            residency.clone(),
            scheduler.clone(),
            cache.clone(),
            shadow,
            metrics.clone(),
        );
        let jobs = Jobs::open(
            &config,
            registry.clone(),
            routing.clone(),
            residency.clone(),
            scheduler.clone(),
            metrics.clone(),
        )?;
        let costs = Costs::new(registry.clone(), routing.clone(), residency.clone());
        let grpc = grpc::Rooms::new(&config);
        let uploads = Semaphore::new(config.max_uploads.max(1));
        let draining = AtomicBool::new(false);
        // Reading all records leaves much freed memory behind.
        residency.free(Vec::new());
        Ok(Self {
            config,
            registry,
            sandbox,
            routing,
            residency,
            scheduler,
            gateway,
            cache,
            costs,
            rollouts,
            jobs,
            metrics,
            grpc,
            uploads,
            draining,
        })
    }

    /// Sets the gauges that are counted when somebody looks.
    pub(crate) fn observe(&self) {
        use crate::residency::Warmth::{Cold, Linked, Resident};
        let (mut linked, mut resident) = (0, 0);
        for version in self.routing.table().versions() {
            match version.slot.warmth() {
                Cold => {}
                Linked => linked += 1,
                Resident => resident += 1,
            }
        }
        self.metrics.linked.set(f64::from(linked));
        self.metrics.resident.set(f64::from(resident));
        self.metrics.instances_idle.set(self.sandbox.idle() as f64);
        let spares = self.sandbox.spares();
        self.metrics.instances_spare.set(spares as f64);
        self.residency.observe();
        let queues = &self.metrics.compute_queue;
        queues.callers.set(self.scheduler.waiting() as f64);
        queues.batch.set(self.scheduler.waiting_batch() as f64);
        self.jobs.observe();
        self.costs.charge_memory();
    }
}

fn slots(count: usize) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

/// All paths, each with its description for `/openapi.json`.
pub fn router(app: Arc<App>) -> Router {
    let mut described = openapi::Head::openapi();
    described.merge(handler::Described::openapi());
    let (router, document) = OpenApiRouter::with_openapi(described)
        .routes(routes!(control::functions))
        .routes(routes!(control::function, control::delete_function))
        .routes(routes!(versions::versions, versions::upload))
        .routes(routes!(versions::version, versions::delete_version))
        .routes(routes!(versions::bundle))
        .routes(routes!(versions::diff))
        .routes(routes!(versions::set_retention))
        .routes(routes!(residency::version))
        .routes(routes!(residency::server))
        .routes(routes!(traffic::traffic, traffic::set_traffic))
        .routes(routes!(traffic::policies))
        .routes(routes!(traffic::policy))
        .routes(routes!(traffic::rollback))
        .routes(routes!(rollouts::status, rollouts::start))
        .routes(routes!(rollouts::act))
        .routes(routes!(rollouts::history))
        .routes(routes!(rollouts::shadow))
        .routes(routes!(cost::all))
        .routes(routes!(cost::of_function))
        .routes(routes!(cost::of_version))
        .routes(routes!(invoke::split))
        .routes(routes!(invoke::version))
        .routes(routes!(invoke::labelled))
        .routes(routes!(jobs::of_function, jobs::submit))
        .routes(routes!(jobs::submit_version))
        .routes(routes!(jobs::submit_labelled))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show, jobs::delete))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::results))
        .routes(routes!(control::devices))
        .routes(routes!(control::metrics))
        .routes(routes!(openapi::document))
        .route("/f/{f}", any(handler::handle))
        .route("/f/{f}/", any(handler::handle))
        .route("/f/{f}/{*path}", any(handler::handle))
        .layer(CatchPanicLayer::custom(|panic| {
            panicked(panic).into_problem()
        }))
        .merge(v2_routes())
        .split_for_parts();
    router
        .merge(grpc::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(Arc::new(document)))
        .with_state(app)
}

/// The paths of the Open Inference Protocol over REST.
fn v2_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(v2::server::metadata))
        .routes(routes!(v2::server::live))
        .routes(routes!(v2::server::ready))
        .routes(routes!(v2::models::model))
        .routes(routes!(v2::models::model_version))
        .routes(routes!(v2::models::model_label))
        .routes(routes!(v2::models::model_ready))
        .routes(routes!(v2::models::model_version_ready))
        .routes(routes!(v2::models::model_label_ready))
        .routes(routes!(v2::infer::infer))
        .routes(routes!(v2::infer::infer_version))
        .routes(routes!(v2::infer::infer_label))
        .routes(routes!(v2::configuration::model))
        .routes(routes!(v2::configuration::version))
        .routes(routes!(v2::statistics::all))
        .routes(routes!(v2::statistics::model))
        .routes(routes!(v2::statistics::version))
        .routes(routes!(v2::repository::index))
        .routes(routes!(v2::repository::load))
        .routes(routes!(v2::repository::unload))
        .layer(CatchPanicLayer::custom(|panic| panicked(panic).into_v2()))
}

async fn unknown_path(uri: Uri) -> Response {
    let path = uri.path();
    Failure::UnknownPath(path.chars().take(200).collect()).into_response_at(path)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    Failure::Method(format!("{path} does not take {method}")).into_response_at(path)
}

/// What a caller is told whose request made a handler panic.
#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Failure {
    tracing::error!(panic = panic_text(panic.as_ref()), "a handler panicked");
    Failure::Internal("the server failed on this request".into())
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// A server that listens, but does not answer yet.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    grpc: Option<(TcpListener, SocketAddr)>,
}

impl Server {
    /// Opens the data directory and the address.
    ///
    /// # Errors
    /// [`ServerError::Registry`] where another server has the directory,
    /// [`ServerError::Listen`] where something has the address.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        let (listener, address) = listen(config.listen).await?;
        let grpc = match config.grpc_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let opened = tokio::task::spawn_blocking(move || App::open(config)).await;
        let app = opened.map_err(|error| std::io::Error::other(error.to_string()))??;
        Ok(Self {
            app: Arc::new(app),
            listener,
            address,
            grpc,
        })
    }

    /// Where it listens, with the port that it really has.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for gRPC alone, if anywhere.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|(_, address)| *address)
    }

    /// Answers until `shutdown` is done; then takes no more connections, lets
    /// what is in flight finish within the grace period, and returns.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let Self {
            app,
            listener,
            grpc,
            ..
        } = self;
        app.jobs.start(app.config.compute_threads)?;
        let mut background = JoinSet::new();
        background.spawn(follow(app.clone()));
        background.spawn(sweep(app.clone()));
        background.spawn(judge(app.clone()));
        background.spawn(upkeep(app.clone()));
        background.spawn(keep_books(app.clone()));
        let told = Arc::new(tokio::sync::Notify::new());
        let signal = {
            let (app, told) = (app.clone(), told.clone());
            async move {
                shutdown.await;
                app.draining.store(true, Relaxed);
                app.jobs.halt();
                told.notify_one();
            }
        };
        let grace = app.config.grace;
        let mut doors = vec![Door {
            listener,
            router: router(app.clone()),
        }];
        doors.extend(grpc.map(|(listener, _)| Door {
            listener,
            router: grpc::router(app.clone()),
        }));
        let serving = connections::serve(doors, &app.config, app.metrics.clone(), signal);
        let out_of_grace = async {
            told.notified().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            () = serving => {}
            () = out_of_grace => tracing::warn!(?grace, "requests in flight are given up"),
        }
        background.shutdown().await;
        app.jobs.stopped().await;
        let registry = app.registry.clone();
        let save = move || {
            app.rollouts.save();
            app.costs.save();
        };
        let _ = tokio::task::spawn_blocking(save).await;
        released(&registry).await;
        Ok(())
    }
}

/// Binds and runs: see [`Server`].
///
/// # Errors
/// As [`Server::bind`] and [`Server::run`].
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServerError> {
    Server::bind(config).await?.run(shutdown).await
}

/// Rebuilds routes when the registry says that they changed.
async fn follow(app: Arc<App>) {
    let mut changes = app.registry.changes();
    loop {
        use tokio::sync::broadcast::error::RecvError;
        let changed = match changes.recv().await {
            Ok(function) => vec![function],
            // Too many to tell one by one: read them all again.
            Err(RecvError::Lagged(_)) => {
                let mut all: Vec<_> = app.routing.table().functions.keys().cloned().collect();
                all.extend(
                    app.registry
                        .functions()
                        .unwrap_or_default()
                        .into_iter()
                        .map(|f| f.name),
                );
                all
            }
            Err(RecvError::Closed) => return,
        };
        let app = app.clone();
        let refreshed = tokio::task::spawn_blocking(move || {
            changed
                .iter()
                .try_for_each(|function| app.routing.refresh(function))
        });
        match refreshed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a route can't be read"),
            Err(error) => tracing::error!(%error, "a route can't be read"),
        }
    }
}

/// Drops what was idle for too long, and answers that were kept long enough; loads what is pinned.
async fn sweep(app: Arc<App>) {
    let mut ticks = tokio::time::interval(app.config.sweep_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        app.cache.expire();
        app.costs.charge_memory();
        realtime::keep(&app);
        let idle = app.residency.cool();
        if !idle.is_empty() {
            let residency = app.residency.clone();
            let _ = tokio::task::spawn_blocking(move || residency.free(idle)).await;
        }
    }
}

/// Waits until nothing else holds the registry, so that its directory can be opened again: work on
/// other threads may be ending still.
async fn released(registry: &Registry) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let started = Instant::now();
    while registry.holders() > 1 && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Judges rollouts, and moves them on or back.
async fn judge(app: Arc<App>) {
    let mut ticks = tokio::time::interval(rollout::INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let app = app.clone();
        // It writes to the disk when something moves.
        let judged = tokio::task::spawn_blocking(move || app.rollouts.tick(Instant::now()));
        if let Err(error) = judged.await {
            tracing::error!(%error, "rollouts can't be judged");
        }
    }
}

/// Saves what versions have used.
async fn keep_books(app: Arc<App>) {
    let mut ticks = tokio::time::interval(SAVE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let app = app.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || app.costs.save()).await {
            tracing::error!(%error, "usage can't be saved");
        }
    }
}

/// Keeps the metrics small between scrapes.
async fn upkeep(app: Arc<App>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        app.metrics.upkeep();
    }
}
