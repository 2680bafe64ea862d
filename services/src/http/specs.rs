//! Specs of the API.
