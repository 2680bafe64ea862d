//! `GET /api/<read model>` and `POST /api/<read model>/query`: a question, and its answer as JSON or CSV.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use domain::StreamKind;
use projections::{READ_MODELS, ReadModel};

use super::body::{self, COMMAND_BYTES_MAX};
use super::problem::Problem;
use super::question::{self, Asked};
use super::{Api, render};

pub async fn ask(
    State(api): State<Api>,
    method: Method,
    name: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let model = read_model(name)?;
    let Query(parameters) =
        parameters.map_err(|_| Problem::malformed("query", "the query parameters cannot be read"))?;
    let asked = question::of_url(model, parameters)?;
    if method == Method::HEAD {
        // Nobody gets to see the rows, so nothing is read.
        (model.plan)(&asked.ask.question).map_err(|error| Problem::malformed("query", error.to_string()))?;
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
    let model = read_model(name)?;
    let json = body::json(&headers, body, COMMAND_BYTES_MAX).await?;
    answer(&api, model, question::of_json(model, json)?).await
}

async fn answer(api: &Api, model: &'static ReadModel, asked: Asked) -> Result<Response, Problem> {
    match asked.wants_all() {
        true => {
            let (first, rest) = api.queries.ask_all(model, asked.ask).await?;
            Ok(render::all(&api.answers, model, asked.format, first, rest))
        }
        false => {
            let as_of = asked.ask.question.as_of;
            let answered = api.queries.ask(model, asked.ask).await?;
            render::page(&api.answers, model, asked.format, answered, as_of)
        }
    }
}

fn read_model(name: Result<Path<String>, PathRejection>) -> Result<&'static ReadModel, Problem> {
    let Path(name) = name.map_err(|_| Problem::malformed("path", "the path is not UTF-8 when decoded"))?;
    if let Some(model) = ReadModel::find(&name) {
        return Ok(model);
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
