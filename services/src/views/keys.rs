//! What things are called besides their ids: `case=key:desk:INC0001` in a question, and the name of a customer in an answer.

use std::collections::HashMap;

use domain::{StreamKind, link};
use projections::customers::CustomerRow;
use projections::{Expr, Group, Op, Operand, Question, ReadModel, Row, Select, Value, Where};
use uuid::Uuid;

use super::{Ask, AskError, Queries};
use crate::commands::Reference;

/// A value of a filter that names a thing by a key.
pub struct Named<'a> {
    /// The column.
    pub at: String,
    pub kind: StreamKind,
    /// `key:desk:INC0001`; the thing's id is to be put in its place.
    pub text: &'a mut String,
}

/// The values that are keys, in the filters on columns that name things.
pub fn named_by_keys<'a>(model: &ReadModel, question: &'a mut Question) -> Vec<Named<'a>> {
    let columns = model.filters();
    let mut named = Vec::new();
    for filter in &mut question.filters {
        let column = columns.iter().find(|column| column.name == filter.column);
        let Some(kind) = column.and_then(projections::Column::names) else {
            continue;
        };
        for operand in &mut filter.operands {
            if let Operand::Text(text) | Operand::Bare(text) = operand
                && text.starts_with("key:")
            {
                let at = filter.column.clone();
                named.push(Named { at, kind, text });
            }
        }
    }
    named
}

impl Queries {
    /// What a key means by what the read models know. Whoever has the shards at hand asks
    /// [`Commands::resolve`](crate::commands::Commands::resolve), which also knows what was linked a moment ago.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn resolve(&self, kind: StreamKind, reference: &Reference) -> Result<Uuid, AskError> {
        let derived = reference.id_by_name(kind);
        let Some((source, key)) = reference.may_be_linked(kind) else {
            return Ok(derived);
        };
        let mut ask = Ask::of(self.question());
        let link = link::link_id(source, key).to_string();
        ask.question.filters.push(Where::equal("link", &link));
        let answer = self.ask(&projections::external_keys::MODEL, ask).await?.answer;
        let at = answer.columns.iter().position(|column| *column == "customer");
        let customer = answer.rows.first().and_then(|row| row.get(at?));
        Ok(match customer {
            Some(Value::Uuid(customer)) => *customer,
            _ => derived,
        })
    }

    /// The names of those of these customers that are known.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn customer_names(&self, customers: &[Uuid]) -> Result<HashMap<Uuid, String>, AskError> {
        let mut names = HashMap::new();
        if customers.is_empty() {
            return Ok(names);
        }
        let generation = self.live(Group::Sales).await?;
        let select = |ids| {
            let select = Select::of(CustomerRow::TABLE, [Expr::Column("customer"), Expr::Column("name")]);
            select.filter_any("customer", Op::In, ids)
        };
        let ids: Vec<Value> = customers.iter().copied().map(Value::Uuid).collect();
        for row in self.rows_of(&generation, &ids, select).await? {
            if let [Value::Uuid(customer), name] = row.as_slice() {
                names.insert(*customer, name.to_text());
            }
        }
        Ok(names)
    }
}
