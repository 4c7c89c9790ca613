//! How fast it goes: what waits for a budget and is said to, how many at once, and how many are claimed together.

use super::*;
use crate::store::Spent;

/// What of the budget of each destination makes something wait.
fn spent(site: &Site) -> Vec<Option<Spent>> {
    site.overview().destinations.into_iter().map(|row| row.spent).collect()
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_budget_is_kept_until_it_goes_on() {
    let mut site = Site::new(&["prod", "other"], |s, _| {
        let limits = Limits { requests_per_hour: 30, ..Limits::default() };
        s.destinations.insert(DestinationName::new("prod").unwrap(), limits);
        s.interval = HOUR * 24;
    });
    for n in 0..60u32 {
        site.record(&[(&format!("b{n}"), Severity::Minor, "prod", "incident")]).await;
    }
    site.record(&[
        ("c", Severity::Minor, "other", "incident"),
        ("d", Severity::Critical, "prod", "incident"),
    ])
    .await;
    site.start();
    pass(MINUTE).await;
    let told = spent(&site);
    let [Some(prod), None] = told.as_slice() else { panic!("{told:?}") };
    assert!(prod.reason.starts_with("`requests_per_hour = 30`: 27 were made in this hour, and the last 3"));
    assert!(prod.critical_go_on && (20..=27).contains(&prod.per_hour), "{prod:?}");
    assert_eq!(prod.until_at.since(NOW).as_secs() / 60, 60);
    let waiting = site.in_state(DeliveryState::Pending);
    let says = |row: &crate::store::DeliveryRow| {
        row.due_at == prod.until_at && row.reason.as_deref() == Some(prod.reason.as_str())
    };
    assert!(waiting.len() > 30 && waiting.iter().all(says), "{waiting:?}");
    // Asked once more it can send nothing, and does not forget how many an hour carries. So does a restart.
    site.sync().await;
    assert_eq!(spent(&site)[0].as_ref().map(|spent| spent.per_hour), Some(prod.per_hour));
    site.kill();
    assert!(spent(&site)[0].is_some());
    site.start();
    pass(HOUR * 4).await;
    assert_eq!((site.pending(), spent(&site)), (0, vec![None, None]), "nothing waits any longer");
}
