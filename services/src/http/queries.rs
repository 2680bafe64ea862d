//! `GET /api/<read model>` and `POST /api/<read model>/query`: a question, and its answer as JSON or CSV.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use domain::StreamKind;
use projections::{READ_MODELS, ReadModel};

use super::body::{self, COMMAND_BYTES_MAX};
use super::file;
use super::problem::Problem;
use super::question::{self, Asked, Format};
use super::{Api, reference, render};
use crate::commands::Commands;
use crate::views::{Named, named_by_keys};

pub async fn ask(
    State(api): State<Api>,
    method: Method,
    name: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let (model, is_file) = read_model(name)?;
    let Query(parameters) =
        parameters.map_err(|_| Problem::malformed("query", "the query parameters cannot be read"))?;
    let mut asked = question::of_url(model, parameters, api.queries.calendar())?;
    if is_file && asked.format == Format::Json {
        asked.format = Format::Csv;
    }
    if method == Method::HEAD {
        find_by_keys(&api.commands, model, &mut asked).await?;
        // Nobody gets to see the rows, so nothing is read.
        (model.plan)(&asked.ask.question)?;
        return Ok(render::head(model, asked.format));
    }
    answer(&api, model, asked).await
}

/// The same question as JSON in the body, so that nothing personal stands in a URL.
pub async fn ask_by_body(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (model, _) = read_model(name)?;
    let json = body::json(&headers, body, COMMAND_BYTES_MAX).await?;
    answer(&api, model, question::of_json(model, json, api.queries.calendar())?).await
}

async fn answer(api: &Api, model: &'static ReadModel, mut asked: Asked) -> Result<Response, Problem> {
    find_by_keys(&api.commands, model, &mut asked).await?;
    let calendar = api.queries.calendar();
    match asked.wants_all() {
        true => {
            let (first, rest) = api.queries.ask_all(model, asked.ask).await?;
            Ok(render::all(&api.answers, model, asked.format, first, rest, calendar))
        }
        false => {
            let as_of = asked.ask.question.as_of;
            let answered = api.queries.ask(model, asked.ask).await?;
            render::page(&api.answers, model, asked.format, answered, as_of, calendar)
        }
    }
}

/// Puts the id for each thing that a filter names by an outside key, as `key:<source>:<key>`.
pub async fn find_by_keys(commands: &Commands, model: &ReadModel, asked: &mut Asked) -> Result<(), Problem> {
    for Named { at, kind, text } in named_by_keys(model, &mut asked.ask.question) {
        let named = reference(text).map_err(|problem| problem.moved(|_| at.clone()))?;
        *text = commands.resolve(kind, &named).await?.to_string();
    }
    Ok(())
}

/// The read model of a path, and whether it is asked for as a file: `/api/customers.csv`.
fn read_model(name: Result<Path<String>, PathRejection>) -> Result<(&'static ReadModel, bool), Problem> {
    let Path(name) = name.map_err(|_| Problem::malformed("path", "the path is not UTF-8 when decoded"))?;
    if let Some(found) = file::named(&name) {
        return Ok(found);
    }
    if StreamKind::parse(&name).is_some() {
        return Err(Problem::wrong_method("GET", &format!("/api/{name}")));
    }
    let names: Vec<&str> = READ_MODELS.iter().map(|model| model.name).collect();
    let known = names.join(", ");
    Err(Problem::not_found(format!(
        "there is no read model {name:?}; there are: {known}"
    )))
}
