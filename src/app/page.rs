//! The status page beside the service: what it is told of the config, its listener, and the metrics in a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Ended;
use crate::config::Config;
use crate::model::HealthIssue;
use crate::model::gather::Gather as _;
use crate::net::listen;
use crate::status::page::{Facts, Page};

/// Between two tries to listen at an address that somebody else has.
const TO_LISTEN: Duration = Duration::from_secs(15);
/// Between two looks whether the file of the metrics is to be written again.
const TO_WRITE: Duration = Duration::from_secs(30);

/// What the page tells of a config.
pub(super) fn facts(config: &Config) -> Facts {
    let place = [&config.agent.site, &config.agent.zone].into_iter().flatten().cloned().collect();
    let instances = config.destinations.iter();
    Facts {
        place,
        interval: config.relay.enabled.then_some(config.relay.interval),
        rules: config.rules.iter().filter(|rule| rule.enabled).count(),
        instances: instances.map(|one| (one.name.to_string(), one.instance.to_string())).into_map(),
        budgets: config
            .relay
            .destinations
            .iter()
            .map(|(name, limits)| (name.to_string(), limits.requests_per_hour))
            .into_map(),
    }
}

/// Serves the page; while its address cannot be had, that is told and tried again.
pub(super) async fn serve(
    page: Page,
    address: SocketAddr,
    trouble: watch::Sender<Option<HealthIssue>>,
    stop: CancellationToken,
) -> Ended {
    let listener = loop {
        match listen::tcp(address) {
            Ok(listener) => break listener,
            Err(e) => {
                let what = format!("the status page cannot be shown at {address}: {e}");
                let remedy = "give [status] listen another port, or end who has this one (ss -ltnp); then it goes on by itself";
                let issue = HealthIssue::new("page", what, remedy);
                if trouble.borrow().is_none() {
                    tracing::error!(remedy, "{}; tried again", issue.told());
                }
                trouble.send_replace(Some(issue));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return ("status page", Ok(())),
            () = tokio::time::sleep(TO_LISTEN) => {}
        }
    };
    if trouble.borrow().is_some() {
        trouble.send_replace(None);
    }
    let at = listener.local_addr().unwrap_or(address);
    tracing::info!("the status page is at http://{at}/");
    page.run(listener, stop).await;
    ("status page", Ok(()))
}

/// Writes the metrics to a file when they have changed; what fails is said when it begins.
pub(super) async fn write(page: Page, path: PathBuf, stop: CancellationToken) -> Ended {
    let (mut before, mut failed) = (String::new(), false);
    loop {
        let (page, path, was) = (page.clone(), path.clone(), std::mem::take(&mut before));
        let write = move || {
            let mut was = was;
            let written = page.write(&path, &mut was);
            (was, written.map_err(|e| (path, e)))
        };
        match tokio::task::spawn_blocking(write).await {
            Ok((was, written)) => {
                before = was;
                match written {
                    Ok(()) => failed = false,
                    Err((path, e)) if !std::mem::replace(&mut failed, true) => {
                        tracing::error!(
                            "the metrics cannot be written to {}: {e}; tried again",
                            path.display()
                        );
                    }
                    Err(_) => {}
                }
            }
            Err(e) => return ("metrics", Err(e.into())),
        }
        tokio::select! {
            () = stop.cancelled() => return ("metrics", Ok(())),
            () = tokio::time::sleep(TO_WRITE) => {}
        }
    }
}
