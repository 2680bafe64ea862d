//! Selects as SQL, on the merged table.

use jiff::Timestamp;
use jiff::civil::Date;
use projections::{Column, ColumnType, Expr, Key, Op, Select, Table, TableKind, Value};

use super::{Dialect, FIRST_DATE, Stored, first_time, is_of, misfit, names_of_t, of_t, type_name};

/// A select, ready to run.
pub(crate) struct Rendered {
    pub sql: String,
    pub parameters: Vec<(ColumnType, Value)>,
    /// Of each column of the result.
    pub types: Vec<ColumnType>,
    pub is_limited: bool,
    /// Bytes that its rows may have.
    pub room: usize,
}

/// Makes SQL of a select on the merged table. Rows come in the order asked for, and within that by key (of groups: by the plain
/// columns), so that both stores agree on order and limit. An order by a column that is only aggregated is by the aggregate.
///
/// # Errors
/// A select that does not fit the table, as a sentence.
pub(crate) fn render(stored: &Stored, select: &Select) -> Result<Rendered, String> {
    let table = select.table;
    if select.exprs.is_empty() {
        return Err(format!("a select on table {} asks for nothing", table.name));
    }
    let is_aggregate = select.exprs.iter().any(|expr| !matches!(expr, Expr::Column(_)));

    let mut terms = Vec::new();
    let mut types = Vec::new();
    let mut groups: Vec<&Column> = Vec::new();
    for expr in &select.exprs {
        let (term, ty) = match expr {
            Expr::Column(name) if is_aggregate => {
                let column = stored.comparable(name)?;
                groups.push(column);
                (of_t(name), column.ty)
            }
            Expr::Column(name) => (of_t(name), stored.column(name)?.ty),
            Expr::Sum(name) => (stored.sum(stored.summable(name)?), ColumnType::Int),
            Expr::Min(name) => (stored.least(stored.comparable(name)?), stored.column(name)?.ty),
            Expr::Max(name) => (stored.greatest(stored.comparable(name)?), stored.column(name)?.ty),
            Expr::Count => ("COUNT(*)".to_owned(), ColumnType::Int),
        };
        terms.push(term);
        types.push(ty);
    }

    let mut parameters = Vec::new();
    let conditions = conditions(stored, select, &mut parameters)?;
    let order = order(stored, select, &terms, is_aggregate, &groups)?;

    let mut sql = format!("SELECT {} FROM ({}) AS t", terms.join(", "), stored.merged());
    if !conditions.is_empty() {
        sql += &format!(" WHERE {}", conditions.join(" AND "));
    }
    if !groups.is_empty() {
        sql += &format!(" GROUP BY {}", names_of_t(&groups));
    }
    if !order.is_empty() {
        sql += &format!(" ORDER BY {}", order.join(", "));
    }
    if let Some(limit) = select.limit {
        sql += &format!(" LIMIT {limit}");
    }
    if select.offset > 0 {
        sql += &format!(" OFFSET {}", select.offset);
    }
    Ok(Rendered {
        sql,
        parameters,
        types,
        is_limited: select.limit.is_some(),
        room: select.bytes_max,
    })
}

/// The select, and [`READ_UNTIL`] of its generation in rows of their own: one statement sees one snapshot and costs one round trip. Its
/// parameters are followed by the group and the number, its columns by shard and next, which are null in the select's own rows; these
/// keep their order.
pub(crate) fn with_read_until(select: &Rendered) -> String {
    let (group, number) = (select.parameters.len() + 1, select.parameters.len() + 2);
    let nulls = select
        .types
        .iter()
        .map(|ty| format!("NULL::{}, ", type_name(Dialect::Postgres, *ty)));
    // A branch without a limit could be split among parallel workers, and lose its order.
    let limit = if select.is_limited {
        ""
    } else {
        "LIMIT 9223372036854775807"
    };
    format!(
        "SELECT {}shard, next FROM read_checkpoints WHERE read_group = ${group} AND number = ${number} \
         UNION ALL (SELECT r.*, NULL, NULL FROM ({} {limit}) AS r)",
        nulls.collect::<String>(),
        select.sql
    )
}

fn conditions(
    stored: &Stored,
    select: &Select,
    parameters: &mut Vec<(ColumnType, Value)>,
) -> Result<Vec<String>, String> {
    let mut conditions = Vec::new();
    let mut parameter = |ty, value| {
        parameters.push((ty, value));
        format!("${}", parameters.len())
    };
    for filter in &select.filters {
        let name = of_t(stored.column(filter.column)?.name);
        let has_null = filter.values.contains(&Value::Null);
        let mut values = Vec::new();
        for value in filter.values.iter().filter(|value| **value != Value::Null) {
            let column = stored.comparable(filter.column)?;
            if !is_of(column.ty, value) {
                return Err(misfit(select.table, column));
            }
            values.push(parameter(column.ty, not_before_all(value)));
        }
        let list = values.join(", ");
        conditions.push(match (filter.op, values.is_empty(), has_null) {
            (Op::Eq | Op::In, true, true) => format!("{name} IS NULL"),
            (Op::Eq | Op::In, true, false) => "1 = 0".to_owned(),
            (Op::Eq | Op::In, false, true) => format!("({name} IS NULL OR {name} IN ({list}))"),
            (Op::Eq, false, false) if values.len() == 1 => format!("{name} = {list}"),
            (Op::Eq | Op::In, false, false) => format!("{name} IN ({list})"),
            (Op::Ne, true, true) => format!("{name} IS NOT NULL"),
            (Op::Ne, true, false) => "1 = 1".to_owned(),
            (Op::Ne, false, true) => format!("{name} NOT IN ({list})"),
            // What has no value differs from every value.
            (Op::Ne, false, false) if stored.column(filter.column)?.nullable => {
                format!("({name} IS NULL OR {name} NOT IN ({list}))")
            }
            (Op::Ne, false, false) => format!("{name} NOT IN ({list})"),
            (Op::Lt | Op::Le | Op::Gt | Op::Ge, _, true) => "1 = 0".to_owned(),
            (op, _, false) => {
                let each = values.iter().map(|value| format!("{name} {} {value}", op.sql()));
                match values.is_empty() {
                    true => "1 = 1".to_owned(),
                    false => each.collect::<Vec<_>>().join(" AND "),
                }
            }
        });
    }
    if let Some(until) = &select.until {
        if select.table.kind != TableKind::Journal {
            return Err(format!(
                "table {} is no journal and has no positions",
                select.table.name
            ));
        }
        let mut shards = Vec::new();
        for (shard, offset) in until {
            let shard = parameter(ColumnType::Int, Value::Int(i64::from(*shard)));
            let offset = i64::try_from(*offset).unwrap_or(i64::MAX);
            let offset = parameter(ColumnType::Int, Value::Int(offset));
            shards.push(format!("(t.\"shard\" = {shard} AND t.\"log_offset\" <= {offset})"));
        }
        conditions.push(match shards.is_empty() {
            true => "1 = 0".to_owned(),
            false => format!("({})", shards.join(" OR ")),
        });
    }
    if let Some(after) = &select.after {
        conditions.push(later(select.table, after, parameter)?);
    }
    Ok(conditions)
}

/// That a row comes after another one in the order of the key, nulls first.
fn later(table: &Table, after: &Key, mut parameter: impl FnMut(ColumnType, Value) -> String) -> Result<String, String> {
    let key = table.row_key();
    if after.len() != key.len() {
        let (is, given) = (key.len(), after.len());
        return Err(format!(
            "table {} has a key of {is} columns, not of {given}",
            table.name
        ));
    }
    // In the order in which they will stand there: SQLite counts parameters by their first use.
    let mut values: Vec<Option<String>> = Vec::new();
    for (column, value) in key.iter().zip(after) {
        values.push(match value {
            Value::Null if column.nullable => None,
            value if is_of(column.ty, value) => Some(parameter(column.ty, not_before_all(value))),
            _ => return Err(misfit(table, column)),
        });
    }
    if !key.is_empty() && key.iter().all(|column| !column.nullable) {
        // What an index can find the place of.
        let columns: Vec<&Column> = key.iter().collect();
        let values: Vec<String> = values.into_iter().flatten().collect();
        return Ok(format!("({}) > ({})", names_of_t(&columns), values.join(", ")));
    }
    // After a row that is equal in the whole key there is none.
    let nowhere = "1 = 0".to_owned();
    Ok(key.iter().zip(values).rev().fold(nowhere, |later, (column, value)| {
        let name = of_t(column.name);
        match value {
            None => format!("({name} IS NOT NULL OR ({name} IS NULL AND {later}))"),
            Some(value) => format!("({name} > {value} OR ({name} = {value} AND {later}))"),
        }
    }))
}

fn order(
    stored: &Stored,
    select: &Select,
    terms: &[String],
    is_aggregate: bool,
    groups: &[&Column],
) -> Result<Vec<String>, String> {
    let mut parts: Vec<String> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for order in &select.order {
        let column = stored.comparable(order.column)?;
        let is_grouped = groups.contains(&column);
        if !is_aggregate || is_grouped {
            parts.push(ordered(&of_t(column.name), column.nullable, order.descending));
            named.push(column.name);
            continue;
        }
        let aggregate = select.exprs.iter().zip(terms).find(|(expr, _)| match expr {
            Expr::Sum(name) | Expr::Min(name) | Expr::Max(name) => *name == column.name,
            Expr::Column(_) | Expr::Count => false,
        });
        let (_, term) = aggregate
            .ok_or_else(|| format!("groups cannot be ordered by {:?}, which is not asked for", column.name))?;
        parts.push(ordered(term, true, order.descending));
    }
    let ties: Vec<&Column> = match is_aggregate {
        true => groups.to_vec(),
        false => select.table.row_key().iter().collect(),
    };
    for column in ties.iter().filter(|column| !named.contains(&column.name)) {
        parts.push(ordered(&of_t(column.name), column.nullable, false));
    }
    Ok(parts)
}

fn ordered(term: &str, nullable: bool, descending: bool) -> String {
    let direction = match (descending, nullable) {
        (false, false) => "",
        (false, true) => " NULLS FIRST",
        (true, false) => " DESC",
        (true, true) => " DESC NULLS LAST",
    };
    format!("{term}{direction}")
}

/// What is earlier than anything stored, as a value that any store can compare with.
fn not_before_all(value: &Value) -> Value {
    match value {
        Value::Date(date) if *date < FIRST_DATE => Value::Date(Date::constant(-1, 12, 31)),
        Value::Time(time) if *time < first_time() => Value::Time(Timestamp::constant(-62_167_219_201, 0)),
        other => other.clone(),
    }
}
