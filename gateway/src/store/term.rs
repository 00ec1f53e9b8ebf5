//! The fence of a leader: what it began while it led is written only as long as nobody else does.

use sqlx::AnyConnection;

/// For as long as one gateway leads.
#[derive(Clone, Debug)]
pub struct Term(Option<String>);

impl Term {
    /// Of what nobody has to lead for.
    pub fn always() -> Term {
        Term(None)
    }

    /// Of the gateway with this lease. A lease that has ended never comes back, so it leads once.
    pub fn of(lease: String) -> Term {
        Term(Some(lease))
    }

    /// Whether it does. Nobody else can before this is committed: who takes over changes that row.
    pub(super) async fn goes_on(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        let Some(lease) = &self.0 else { return Ok(true) };
        let sql = "SELECT gateway FROM leader WHERE one = 1 AND gateway = $1 FOR SHARE";
        Ok(sqlx::query(sql).bind(lease.clone()).fetch_optional(connection).await?.is_some())
    }
}
