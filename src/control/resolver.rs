//! Keeps the host names of backends resolved: before the listeners open, and every half minute.
//!
//! A name that cannot be resolved keeps the address that it had; one that never could refuses
//! connections like a backend that is down. A name must not lead to another backend's address,
//! because a slot has one owner.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::address::{Address, Endpoint, Resolver};
use crate::events::{Event, Events};
use crate::id::{BackendName, UpstreamName};
use crate::upstream::{Backend, Upstream};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same while some name was never resolved.
const IMPATIENT: Duration = Duration::from_secs(1);
/// For one name. A resolver that hangs must not keep the proxy from starting.
const TIMEOUT: Duration = Duration::from_secs(5);

type Upstreams = BTreeMap<UpstreamName, Arc<Upstream>>;

/// Resolves every name again and again. Ends at once if there is none.
pub(super) async fn run(resolver: Resolver, upstreams: Arc<Upstreams>, events: Events) {
    while named(&upstreams).next().is_some() {
        let is_lost = |backend: &Backend| backend.location().endpoint.is_none();
        let pause = if named(&upstreams).any(is_lost) {
            IMPATIENT
        } else {
            INTERVAL
        };
        sleep(pause).await;
        round(&resolver, &upstreams, &events).await;
    }
}

/// Resolves every name once, all at the same time, and then gives out the addresses: two names may have
/// swapped theirs.
pub(super) async fn round(resolver: &Resolver, upstreams: &Upstreams, events: &Events) {
    let asked: Vec<_> = named(upstreams)
        .map(|backend| {
            let (resolver, address) = (resolver.clone(), backend.params().address.clone());
            tokio::spawn(async move { ask(&resolver, &address).await })
        })
        .collect();
    let mut found = Vec::new();
    for task in asked {
        // Fails only while the runtime is shutting down.
        let Ok(outcome) = task.await else { return };
        found.push(outcome);
    }
    assign(upstreams, found, events);
}

/// Gives every name its address, in their order; what several would have, only the first gets.
fn assign(upstreams: &Upstreams, found: Vec<Result<Endpoint, String>>, events: &Events) {
    let found: Vec<_> = named(upstreams).zip(found).collect();
    let mut owners = owners_that_stay(upstreams, &found);
    for (backend, outcome) in found {
        let claimed = outcome.and_then(|endpoint| claim(&mut owners, backend, endpoint));
        note(backend, claimed, events);
    }
}

async fn ask(resolver: &Resolver, address: &Address) -> Result<Endpoint, String> {
    match timeout(TIMEOUT, resolver.resolve(address)).await {
        Ok(resolved) => resolved.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{address} does not resolve in time")),
    }
}

fn all(upstreams: &Upstreams) -> impl Iterator<Item = &Backend> {
    upstreams.values().flat_map(|upstream| upstream.backends())
}

fn named(upstreams: &Upstreams) -> impl Iterator<Item = &Backend> {
    all(upstreams).filter(|backend| backend.params().address.endpoint().is_none())
}

/// Whose an address is and remains: of those that have no name, and of names that did not resolve now.
fn owners_that_stay(
    upstreams: &Upstreams,
    found: &[(&Backend, Result<Endpoint, String>)],
) -> HashMap<Endpoint, BackendName> {
    let fixed = all(upstreams).filter(|backend| backend.params().address.endpoint().is_some());
    let lost = found.iter().filter(|(_, outcome)| outcome.is_err());
    let staying = fixed.chain(lost.map(|(backend, _)| *backend));
    staying
        .filter_map(|backend| Some((backend.location().endpoint.clone()?, backend.name().clone())))
        .collect()
}

fn claim(
    owners: &mut HashMap<Endpoint, BackendName>,
    backend: &Backend,
    endpoint: Endpoint,
) -> Result<Endpoint, String> {
    match owners.get(&endpoint) {
        None => {
            owners.insert(endpoint.clone(), backend.name().clone());
            Ok(endpoint)
        }
        Some(owner) => {
            let address = &backend.params().address;
            Err(format!(
                "{address} resolves to {endpoint}, which is {owner}"
            ))
        }
    }
}

/// One event per change.
fn note(backend: &Backend, found: Result<Endpoint, String>, events: &Events) {
    let last = backend.location();
    let name = backend.name().clone();
    let event = match &found {
        Ok(endpoint) if last.endpoint.as_ref() != Some(endpoint) || last.problem.is_some() => {
            Event::NameResolved {
                backend: name,
                address: backend.params().address.to_string(),
                endpoint: endpoint.to_string(),
            }
        }
        Err(problem) if last.problem.as_ref() != Some(problem) => Event::NameNotResolved {
            backend: name,
            problem: problem.clone(),
        },
        // Nothing is new.
        _ => return,
    };
    backend.locate(found);
    events.publish(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const TEXT: &str = "
maitred:
  routes:
    - { match: { path: / }, upstream: web }
  upstreams:
    web:
      backends:
        - { name: a, address: \"a.test:80\" }
        - { name: b, address: \"b.test:80\" }
        - { name: c, address: \"10.0.0.3:80\" }
";

    fn upstreams() -> Upstreams {
        let config = Config::parse(TEXT, "test").unwrap();
        let upstreams = config.upstreams.into_iter();
        upstreams
            .map(|params| {
                (
                    params.name.clone(),
                    Upstream::new(params, Events::default()),
                )
            })
            .collect()
    }

    fn at(last: u8) -> Endpoint {
        Endpoint::Ip(([10, 0, 0, last], 80).into())
    }

    /// Where `a` and `b` are, and what is wrong with them.
    fn located(upstreams: &Upstreams) -> Vec<(Option<Endpoint>, Option<String>)> {
        named(upstreams)
            .map(|backend| {
                let location = backend.location();
                (location.endpoint.clone(), location.problem.clone())
            })
            .collect()
    }

    #[test]
    fn names_may_swap_their_addresses() {
        let upstreams = upstreams();
        assign(&upstreams, vec![Ok(at(1)), Ok(at(2))], &Events::default());
        assign(&upstreams, vec![Ok(at(2)), Ok(at(1))], &Events::default());
        assert_eq!(
            located(&upstreams),
            [(Some(at(2)), None), (Some(at(1)), None)]
        );
    }

    #[test]
    fn a_name_that_is_lost_keeps_its_address_from_others() {
        let upstreams = upstreams();
        assign(&upstreams, vec![Ok(at(1)), Ok(at(2))], &Events::default());
        assign(
            &upstreams,
            vec![Err("lost".into()), Ok(at(1))],
            &Events::default(),
        );
        let problem = "b.test:80 resolves to 10.0.0.1:80, which is a".to_owned();
        let expected = [
            (Some(at(1)), Some("lost".to_owned())),
            (Some(at(2)), Some(problem)),
        ];
        assert_eq!(located(&upstreams), expected);
    }

    #[test]
    fn an_address_that_somebody_has_without_a_name_is_not_for_names() {
        let upstreams = upstreams();
        assign(&upstreams, vec![Ok(at(3)), Ok(at(2))], &Events::default());
        let problem = "a.test:80 resolves to 10.0.0.3:80, which is c".to_owned();
        assert_eq!(located(&upstreams)[0], (None, Some(problem)));
    }
}
