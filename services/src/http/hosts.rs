//! By which names this server is reached, and from whose pages.
//!
//! A page of another site can make a browser send requests here. When the site's name is pointed at this machine, its page may even
//! read the answers (DNS rebinding). So a request must name this server in `Host`, and a page that sends it must be one of ours.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Version, header};
use axum::middleware::Next;
use axum::response::Response;

use super::problem::{Kind, Problem};

/// Paths that say how the server is, and no more. Probes reach it by addresses that nobody can know beforehand.
const HEALTH: &str = "/health/";

/// Names of this server; cheap enough to clone once.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// Loopback names go with this port, or without one.
    port: u16,
    others: Vec<(String, Option<u16>)>,
}

impl Hosts {
    /// The names of a server that listens here: the address, and this machine's own names with the same port.
    pub fn of(listen: SocketAddr) -> Hosts {
        let others = match listen.ip().is_loopback() {
            true => vec![],
            false => vec![(host_of(listen.ip()), Some(listen.port()))],
        };
        Hosts {
            port: listen.port(),
            others,
        }
    }

    /// One more name: `crm.example.com` with any port, or `crm.example.com:8443` with this one.
    ///
    /// # Errors
    /// What is neither.
    pub fn and(mut self, name: &str) -> Result<Hosts, String> {
        let (host, port) = parsed(name).ok_or_else(|| {
            format!("{name:?} is no host; write a name such as crm.example.com or crm.example.com:8443")
        })?;
        // Browsers leave the usual ports out of `Host`: a name with one is a name with any.
        let port = port.filter(|port| ![80, 443].contains(port));
        self.others.push((host, port));
        Ok(self)
    }

    fn has(&self, host: &str, port: Option<u16>) -> bool {
        let is_ours = is_loopback(host) && port.is_none_or(|port| port == self.port);
        is_ours
            || self
                .others
                .iter()
                .any(|(name, only)| name == host && (only.is_none() || *only == port))
    }
}

/// Lets through what is meant for this server and comes from no other site's page.
///
/// # Errors
/// 400 for a request without a host or with two, 403 for a foreign one.
pub async fn checked(State(hosts): State<Hosts>, request: Request, next: Next) -> Result<Response, Problem> {
    check(&hosts, &request)?;
    Ok(next.run(request).await)
}

fn check(hosts: &Hosts, request: &Request) -> Result<(), Problem> {
    let host = one(request.headers(), header::HOST)?;
    let is_about_health = request.uri().path().starts_with(HEALTH);
    let named = match host {
        Some(host) => Some(
            parsed(host)
                .ok_or_else(|| Problem::malformed("Host", format!("{host:?} is no host such as crm.example.com")))?,
        ),
        None if is_about_health && request.version() < Version::HTTP_11 => None,
        None => {
            return Err(Problem::malformed(
                "Host",
                "the request names no host; send the header Host",
            ));
        }
    };
    // A request line may name a host as well.
    let also = request.uri().authority().map(|authority| parsed(authority.as_str()));
    let foreign = [Some(named.clone()), also]
        .into_iter()
        .flatten()
        .find(|name| !name.as_ref().is_some_and(|(host, port)| hosts.has(host, *port)));
    if foreign.is_some() && !is_about_health {
        let what = "the Host header names another server; if it is a name of this one, start it with --allowed-host";
        return Err(Problem::new(Kind::Foreign, what));
    }
    let Some(origin) = one(request.headers(), header::ORIGIN)? else {
        return Ok(());
    };
    match is_own_page(hosts, origin, named.as_ref()) {
        true => Ok(()),
        false => Err(Problem::new(
            Kind::Foreign,
            "the request comes from a page of another site, as its Origin says; \
             if that site is one of yours, start this server with --allowed-host",
        )),
    }
}

fn is_own_page(hosts: &Hosts, origin: &str, named: Option<&(String, Option<u16>)>) -> bool {
    let (rest, usual) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(rest), _) => (rest, 80),
        (_, Some(rest)) => (rest, 443),
        (None, None) => return false,
    };
    let Some((host, port)) = parsed(rest) else {
        return false;
    };
    let is_same = named.is_some_and(|(named, at)| {
        *named == host && at.unwrap_or(usual) == port.unwrap_or(usual) && hosts.has(named, *at)
    });
    is_same || hosts.has(&host, Some(port.unwrap_or(usual)))
}

/// The value of a header that stands once.
fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let wrong = |what: &str| Problem::malformed(name.as_str(), format!("the header {name} {what}"));
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(wrong("stands twice in the request"));
    }
    value.to_str().map(Some).map_err(|_| wrong("is no text"))
}

/// A name or an address in small letters, and a port.
fn parsed(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    let (host, port) = (authority.host(), authority.port_u16());
    // Nothing else stands in it: no user, no port that is none.
    let length = host.len() + port.map_or(0, |_| text.len() - text.rfind(':').unwrap_or_default());
    if host.is_empty() || length != text.len() {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    Some((host.to_ascii_lowercase(), port))
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
