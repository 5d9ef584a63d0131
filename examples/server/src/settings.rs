//! The server's settings: the one table that the flags, the variables, the file and the help follow from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use cmdexec_core::coordinator;
use cmdexec_core::token::MIN_SECRET;
use cmdexec_program::logs;
use cmdexec_program::settings::Settings;
use cmdexec_program::settings::parse::{Span, any, list, number, own, text};
use cmdexec_transport_http::server::{self, Network};

use crate::database::Database;
use crate::storage::Storage;

/// What the server was told.
#[derive(Debug)]
pub(crate) struct Options {
    /// A first try: nothing is kept unless a database is named, and no request is one too many.
    pub(crate) dev: bool,
    pub(crate) address: SocketAddr,
    pub(crate) database: Database,
    pub(crate) storage: Storage,
    /// The users' and the workers' secret, as far as they were given.
    pub(crate) secrets: (Option<String>, Option<String>),
    pub(crate) token_ttl: Duration,
    pub(crate) coordinator: coordinator::Options,
    pub(crate) http: server::Options,
    /// Where else to listen: there workers are told to find the push channel.
    pub(crate) ws_address: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log_format: logs::Format,
    pub(crate) log_level: logs::Level,
}

const DAY_MS: u64 = 86_400_000;

pub(crate) fn declare(settings: &mut Settings) -> Options {
    let s = settings;
    let dev =
        s.flag("dev", "Try it: keeps jobs in memory, limits no requests, and prints tokens and what to do with them");
    let port = s.setting("PORT", "Port to listen on; 0 takes a free one").or(3000, number(0..=65_535));
    let bind = s.setting("BIND", "Address to listen on").or(IpAddr::V4(Ipv4Addr::LOCALHOST), any("an IP address"));
    let kept = if dev { Database::Memory } else { Database::Sqlite("data/cmdexec.db".into()) };
    let database = s.setting("DATABASE_URL", "Where jobs are kept: sqlite://FILE, mongodb://HOSTS or memory:");
    let database = database.older("MONGODB_URI").or(kept, Database::parse);
    let database = mongo(s, database);
    let beside = Storage::beside(&database);
    let storage = s.setting("STORAGE_URL", "Where files are kept: a folder, or s3://BUCKET/PREFIX, az://…, gs://…");
    let storage = storage.or(beside, own);
    let secrets = (
        s.setting("JWT_SECRET", "Signs users' tokens").secret().by_default(KEPT).optional(secret),
        s.setting("WORKER_TOKEN_SECRET", "Signs workers' tokens").secret().by_default(KEPT).optional(secret),
    );
    if matches!(database, Database::Mongo(_)) && (secrets.0.is_none() || secrets.1.is_none()) {
        s.problem("JWT_SECRET", "must be set, and WORKER_TOKEN_SECRET too: servers over one database share them");
    }
    if secrets.0.is_some() && secrets.0 == secrets.1 {
        s.problem("WORKER_TOKEN_SECRET", "must differ from JWT_SECRET");
    }
    let token_ttl = s.setting("JWT_TTL", "How long users' tokens are good for").older("JWT_EXPIRES_IN");
    let token_ttl = token_ttl.or(Span(Duration::from_hours(24)), own).0;

    let mut http = http(s, dev);
    let coordinator = coordinator(s);
    http.max_file_size = coordinator.max_file_size;

    let ws_port = s.setting("WS_PORT", "A second port, which workers are told for the push channel (/api/ws)");
    let ws_port = ws_port.optional(number(1..=65_535));
    http.push = Some(server::Push { path: cmdexec_transport_ws::server::PATH.to_owned(), port: ws_port });

    let off = if dev { Metrics(None) } else { Metrics(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)))) };
    let metrics = s.setting("METRICS_BIND", "Address to serve metrics for Prometheus on, or off").or(off, metrics);
    let shutdown_timeout = s.setting("SHUTDOWN_TIMEOUT", "How long ending in order may take");
    let shutdown_timeout = shutdown_timeout.or(Span(Duration::from_secs(20)), own).0;
    let log_format = s.setting("LOG_FORMAT", "text or json").or(logs::Format::Text, own);
    let log_level = s.setting("LOG_LEVEL", "error, warn, info, debug, trace, or directives for single modules");
    let log_level = log_level.or(logs::Level::default(), own);

    s.not_yet("Redis", &["REDIS_URL"]);
    s.not_yet("OIDC", &["OIDC_PROVIDER_URL", "OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"]);
    s.not_yet("TLS (put a proxy in front)", &["TLS_CERT", "TLS_KEY"]);
    s.not_yet("accounts (make tokens with `cmdexec token`)", &["ADMIN_EMAIL", "ADMIN_PASSWORD"]);
    s.setting("ALLOW_SIGNUP", "").only_off("signing up");
    s.not_yet("fetching files from other hosts", &["FILE_URL_HOSTS"]);

    let address = SocketAddr::new(bind, port);
    Options {
        dev,
        address,
        database,
        storage,
        secrets,
        token_ttl,
        coordinator,
        http,
        ws_address: ws_port.map(|port| SocketAddr::new(bind, port)),
        metrics: metrics.0,
        shutdown_timeout,
        log_format,
        log_level,
    }
}

/// What else there is to say of a MongoDB database.
fn mongo(s: &mut Settings, database: Database) -> Database {
    let name = s.setting("MONGODB_DB", "The MongoDB database").by_default("the one in the URL, or cmdexec");
    let name = name.optional(text);
    let pool_size = s.setting("MONGODB_POOL_SIZE", "How many connections to each MongoDB server there may be");
    let pool_size = pool_size.by_default("10, or what the URL says").optional(number(1..=10_000));
    match database {
        Database::Mongo(mongo) => Database::Mongo(mongo.with(name, pool_size)),
        other if name.is_none() && pool_size.is_none() => other,
        other => {
            s.problem("MONGODB_DB", "means nothing, as does MONGODB_POOL_SIZE, without MONGODB_URI");
            other
        }
    }
}

const KEPT: &str = "made once and kept beside the database";

fn http(s: &mut Settings, dev: bool) -> server::Options {
    let max = |default| if dev { 0 } else { default };
    let count = || number(0..=u32::MAX);
    let mut http = server::Options::default();
    let window = s.setting("RATE_LIMIT_WINDOW_MS", "The time that requests are counted in");
    http.limits.window = Duration::from_millis(window.or(60_000, number(1..=DAY_MS)));
    let jobs = s.setting("RATE_LIMIT_MAX_JOBS", "Submissions in that time for each user; 0: no limit");
    http.limits.jobs = jobs.or(max(50), count());
    let beats = s.setting("RATE_LIMIT_MAX_HEARTBEAT", "Heartbeats for each worker; 0: no limit");
    http.limits.heartbeats = beats.or(max(600), count());
    let registrations = s.setting("RATE_LIMIT_MAX_REGISTER", "Registrations for each worker; 0: no limit");
    http.limits.registrations = registrations.or(max(10), count());
    let requests = s.setting("RATE_LIMIT_MAX_REQUESTS", "Other requests for each user; 0: no limit");
    http.limits.requests = requests.older("RATE_LIMIT_MAX").or(max(100), count());
    let origins = s.setting("CORS_ORIGINS", "Origins whose pages may call the API, with commas between them");
    http.cors_origins = origins.older("ALLOWED_ORIGINS").optional(|value| list(value, text)).unwrap_or_default();
    let proxies = s.setting("TRUSTED_PROXIES", "Proxies (addresses or ranges) whose X-Forwarded-For is believed");
    let network = any::<Network>("addresses or ranges such as 10.0.0.0/8");
    http.trusted_proxies = proxies.optional(|value| list(value, &network)).unwrap_or_default();
    for problem in http.validate() {
        s.problem(problem.field.to_uppercase(), problem.message);
    }
    http
}

fn coordinator(s: &mut Settings) -> coordinator::Options {
    let mut options = coordinator::Options::default();
    let days = s.setting("RETENTION_DAYS", "How long finished jobs are kept").or(30, number(1..=36_500));
    options.retention = Duration::from_millis(days * DAY_MS);
    let offline = s.setting("HEARTBEAT_TIMEOUT_MS", "After how long without a heartbeat a worker is shown as offline");
    options.heartbeat_timeout = Duration::from_millis(offline.or(60_000, number(500..=DAY_MS)));
    let cap =
        s.setting("OUTPUT_MAX_MB", "How many MiB of a job's output are kept, half of its beginning, half of its end");
    options.output_cap = cap.or(16, number(1..=1 << 20)) << 20;
    let lease = s.setting("LEASE_MS", "After how long without a heartbeat a worker's jobs are tried elsewhere");
    options.lease = Duration::from_millis(lease.or(60_000, number(500..=DAY_MS)));
    let leases = s.setting("MAX_LEASES_PER_WORKER", "How many jobs a worker may hold at once, whatever it asks for");
    options.max_leases = leases.or(1_024, number(1..=100_000));
    let megabytes = |n: u64| n << 20;
    let most = s.setting("UPLOAD_MAX_MB", "How large a file may be, in MiB");
    options.max_file_size = megabytes(most.or(256, number(1..=1 << 20)));
    let quota = s.setting("FILE_QUOTA_MB", "How large all files of one user may be together, in MiB");
    options.file_quota = megabytes(quota.or(10_240, number(1..=1 << 40)));
    let ttl = s.setting("FILE_TTL", "How long an upload is kept that no job needs");
    let ttl = ttl.or(Span(options.file_ttl), own).0;
    options.file_ttl = ttl;
    if ttl < Duration::from_mins(1) {
        s.problem("FILE_TTL", "must be at least 1m");
    }
    options
}

fn secret(value: &str) -> Result<String, String> {
    if value.chars().count() < MIN_SECRET {
        return Err(format!("must have at least {MIN_SECRET} characters"));
    }
    Ok(value.to_owned())
}

#[derive(Debug)]
struct Metrics(Option<SocketAddr>);

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

fn metrics(value: &str) -> Result<Metrics, String> {
    if value == "off" {
        return Ok(Metrics(None));
    }
    value.parse().map(|address| Metrics(Some(address))).map_err(|_| "must be an address and port, or off".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Command;
    use cmdexec_program::settings::read;

    use super::*;

    fn given(args: &[&str]) -> Options {
        let args = ["server"].iter().chain(args);
        read(Command::new("server"), declare, args, |_| None).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let options = given(&[]);
        assert_eq!(options.address.to_string(), "127.0.0.1:3000");
        assert_eq!(options.database.to_string(), "sqlite://data/cmdexec.db");
        assert_eq!(options.metrics.unwrap().to_string(), "127.0.0.1:9090");
        let http = &options.http;
        let limits = [http.limits.jobs, http.limits.heartbeats, http.limits.registrations, http.limits.requests];
        assert_eq!(limits, [50, 600, 10, 100]);
        assert_eq!(options.coordinator, coordinator::Options::default());
        assert_eq!(options.token_ttl, Duration::from_hours(24));
        assert_eq!(options.storage, Storage::Folder("data/files".into()));
        assert_eq!((options.http.max_file_size, options.coordinator.max_file_size), (256 << 20, 256 << 20));
    }

    #[test]
    fn a_first_try_keeps_nothing_and_limits_nothing_unless_it_is_told_to() {
        let options = given(&["--dev", "--rate-limit-max", "7"]);
        assert_eq!((options.database, options.metrics, options.storage), (Database::Memory, None, Storage::Memory));
        assert_eq!((options.http.limits.jobs, options.http.limits.requests), (0, 7));
        assert_eq!(given(&["--dev", "--database-url", "sqlite:x.db"]).database, Database::Sqlite("x.db".into()));
    }
}
