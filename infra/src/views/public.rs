//! The public views in PostgreSQL: named like the tables, they show the live generation. Other people build views on them, and are granted
//! the right to read them.

use deadpool_postgres::Transaction;
use deadpool_postgres::tokio_postgres::error::SqlState;
use deadpool_postgres::tokio_postgres::types::Type;

use super::Failure;
use super::generations::View;
use super::sql;

/// The views that are built on a view, by name.
const BUILT_ON: &str = "SELECT DISTINCT n.nspname || '.' || v.relname FROM pg_depend d \
     JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass \
     JOIN pg_class v ON v.oid = r.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace \
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass($1) AND v.oid <> d.refobjid ORDER BY 1";
/// Who but the owner may do what: with all of a view, and with single columns. Grantee, privilege, column, may it be passed on?
const GRANTS: &str = "SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, \
         a.privilege_type, a.is_grantable, a.attname FROM ( \
         SELECT (aclexplode(relacl)).*, NULL::text AS attname, relowner FROM pg_class WHERE oid = to_regclass($1) \
         UNION ALL SELECT (aclexplode(attacl)).*, attname::text, relowner FROM pg_attribute \
         JOIN pg_class c ON c.oid = attrelid WHERE attrelid = to_regclass($1)) a WHERE a.grantee <> a.relowner";
const COLUMNS: &str =
    "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

struct Grant {
    grantee: String,
    privilege: String,
    may_be_passed_on: bool,
    column: Option<String>,
}

/// Replaces a public view: in place, so that what other people built on it stays; else, when its columns changed, anew, with the grants of
/// the old one.
pub(super) async fn show(transaction: &mut Transaction<'_>, view: &View) -> Result<(), Failure> {
    let name = sql::quoted(&view.name);
    let attempt = transaction.transaction().await?;
    let replace = format!("CREATE OR REPLACE VIEW {name} AS {}", view.select);
    match attempt.batch_execute(&replace).await {
        Ok(()) => attempt.commit().await?,
        Err(error) if error.code() == Some(&SqlState::INVALID_TABLE_DEFINITION) => {
            attempt.rollback().await?;
            let grants = grants_on(transaction, &name).await?;
            hide(transaction, &view.name, "gets other columns").await?;
            transaction
                .batch_execute(&format!("CREATE VIEW {name} AS {}", view.select))
                .await?;
            carry_over(transaction, &name, &grants).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Drops a public view.
///
/// # Errors
/// [`Failure::Refused`] when somebody built on it, with the names of what stands there.
pub(super) async fn hide(transaction: &mut Transaction<'_>, name: &str, what_happens: &str) -> Result<(), Failure> {
    let quoted = sql::quoted(name);
    let attempt = transaction.transaction().await?;
    match attempt.batch_execute(&format!("DROP VIEW IF EXISTS {quoted}")).await {
        Ok(()) => Ok(attempt.commit().await?),
        Err(error) if error.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
            attempt.rollback().await?;
            let mut built_on = texts(transaction, BUILT_ON, &quoted).await?;
            if built_on.is_empty() {
                built_on.push("something else".to_owned());
            }
            let them = built_on.join(" and ");
            Err(Failure::Refused(format!(
                "the new read models cannot go live: the view crm.{name} {what_happens}, and {them} is built on it. Drop {them} and make it \
                 again afterwards; the swap is tried again by itself"
            )))
        }
        Err(error) => Err(error.into()),
    }
}

async fn grants_on(transaction: &Transaction<'_>, view: &str) -> Result<Vec<Grant>, Failure> {
    let mut grants = Vec::new();
    for row in transaction.query_typed(GRANTS, &[(&view, Type::TEXT)]).await? {
        grants.push(Grant {
            grantee: row.try_get(0)?,
            privilege: row.try_get(1)?,
            may_be_passed_on: row.try_get(2)?,
            column: row.try_get(3)?,
        });
    }
    Ok(grants)
}

/// Gives a view that was just made these grants and no others: what is granted on every new view by default may have been taken away from
/// this one.
async fn carry_over(transaction: &Transaction<'_>, view: &str, grants: &[Grant]) -> Result<(), Failure> {
    for by_default in grants_on(transaction, view).await? {
        let revoke = format!("REVOKE ALL ON {view} FROM {}", by_default.grantee);
        transaction.batch_execute(&revoke).await?;
    }
    let columns = texts(transaction, COLUMNS, view).await?;
    for grant in grants {
        let of_column = match &grant.column {
            None => String::new(),
            Some(column) if columns.contains(column) => format!(" ({})", sql::quoted(column)),
            Some(_) => continue,
        };
        let passed_on = if grant.may_be_passed_on {
            " WITH GRANT OPTION"
        } else {
            ""
        };
        let (privilege, grantee) = (&grant.privilege, &grant.grantee);
        let statement = format!("GRANT {privilege}{of_column} ON {view} TO {grantee}{passed_on}");
        transaction.batch_execute(&statement).await?;
    }
    Ok(())
}

async fn texts(transaction: &Transaction<'_>, statement: &str, view: &str) -> Result<Vec<String>, Failure> {
    let rows = transaction.query_typed(statement, &[(&view, Type::TEXT)]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
