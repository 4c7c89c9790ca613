//! Which alerts a list wants, where SQL cannot be asked.

use ipnet::IpNet;
use rusqlite::{CachedStatement, Connection, params};

use super::{Result, like};
use crate::model::Alert;
use crate::model::protocol::fold;
use crate::store::StoreError;
use crate::store::pack::body::Bodies;
use crate::store::rows::ListFilter;

/// The alerts of a list, of which a filter may want only some. What it asks for is in the packed bodies, so SQL cannot
/// be asked for it; neighbours in a list are mostly neighbours in a pack.
pub(super) struct Titles<'c> {
    bodies: Bodies<'c>,
    filter: &'c ListFilter,
    like: Option<(CachedStatement<'c>, String)>,
}

impl<'c> Titles<'c> {
    /// Of the alerts that this connection reads.
    pub(super) fn of(conn: &'c Connection, filter: &'c ListFilter) -> Result<Self> {
        let like = like(filter).map(|p| Ok::<_, StoreError>((conn.prepare_cached("SELECT ?1 LIKE ?2")?, p)));
        Ok(Self { bodies: Bodies::of(conn), filter, like: like.transpose()? })
    }

    /// Whether the list wants this alert, and its body. One that is damaged has none and must not spoil the list.
    pub(super) fn look(&mut self, alert: i64) -> Result<(bool, Option<Alert>)> {
        let alert = self.bodies.get(alert)?;
        let wanted = match &alert {
            None => !self.filter.looks_inside(),
            Some(alert) => self.wants(alert)?,
        };
        Ok((wanted, alert))
    }

    fn wants(&mut self, alert: &Alert) -> Result<bool> {
        let ListFilter { protocol, engine, address, .. } = self.filter;
        let is_named = |name: &String| {
            let name = fold(name);
            alert.protocols.iter().any(|protocol| protocol.folded() == name)
        };
        let is_near = |net: IpNet| {
            let ends = [&alert.source, &alert.destination].into_iter().filter_map(|end| end.ip);
            ends.into_iter().any(|ip| net.contains(&ip))
        };
        Ok(protocol.as_ref().is_none_or(is_named)
            && engine.is_none_or(|engine| engine == alert.engine)
            && address.is_none_or(is_near)
            && match &mut self.like {
                None => true,
                Some((like, pattern)) => like.query_row(params![alert.title, *pattern], |r| r.get(0))?,
            })
    }
}
