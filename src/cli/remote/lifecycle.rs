//! What a pipeline is to do. Unless `--no-wait` is given, commands end once it has come to pass.

use serde_json::{Value, json};

use super::client::{Client, of, status_of};
use super::{Change, word};
use crate::cli::Failure;

pub(super) fn start(change: &Change, paused: bool) -> Result<(), Failure> {
    let (initial, status) = if paused { ("paused", "Paused") } else { ("running", "Running") };
    turn(change, &format!("start?initial={initial}"), status)
}

/// Asks for a change of state, and waits until the pipeline is in it.
pub(super) fn turn(change: &Change, action: &str, status: &str) -> Result<(), Failure> {
    let client = change.common.client()?;
    let answer = client.json("POST", &format!("{}/{action}", of(&change.name)), None)?;
    // It is done, but not as it should be.
    if let Some(but) = answer.get("message").and_then(Value::as_str) {
        crate::logging::warn(but);
    }
    if !change.no_wait {
        client.wait(&status_of(&change.name), |shown| reached(shown, status))?;
    }
    done(change, &client, &format!("is {}", if change.no_wait { "asked to be " } else { "" }.to_owned() + status))
}

/// Whether a pipeline is in a state, or failed on its way there.
fn reached(shown: &Value, status: &str) -> Result<bool, Failure> {
    if word(shown, "deployment_status") == status {
        return Ok(true);
    }
    match shown.pointer("/deployment_error/message").and_then(Value::as_str) {
        Some(error) if status != "Stopped" => Err(Failure::new(1, error)),
        _ if status != "Stopped" && word(shown, "deployment_desired_status") == "Stopped" => {
            Err(Failure::new(1, "the pipeline was stopped meanwhile"))
        }
        _ => Ok(false),
    }
}

pub(super) fn clear(change: &Change) -> Result<(), Failure> {
    let client = change.common.client()?;
    remove_storage(change, &client)?;
    done(change, &client, if change.no_wait { "is being cleared" } else { "is cleared" })
}

fn remove_storage(change: &Change, client: &Client) -> Result<(), Failure> {
    client.text("POST", &format!("{}/clear", of(&change.name)), None)?;
    if !change.no_wait {
        client.wait(&status_of(&change.name), |shown| Ok(word(shown, "storage_status") == "Cleared"))?;
    }
    Ok(())
}

pub(super) fn delete(change: &Change, force: bool) -> Result<(), Failure> {
    let client = change.common.client()?;
    if force {
        remove_storage(change, &client)?;
    }
    client.text("DELETE", &of(&change.name), None)?;
    let name = &change.name;
    change.common.show(&json!({ "name": name }), |_| format!("pipeline {name} is deleted"));
    Ok(())
}

pub(super) fn checkpoint(change: &Change) -> Result<(), Failure> {
    let client = change.common.client()?;
    let asked = client.json("POST", &format!("{}/checkpoint", of(&change.name)), None)?;
    let number = asked.get("checkpoint_sequence_number").and_then(Value::as_u64).unwrap_or_default();
    let process = word(&asked, "incarnation_uuid");
    let path = format!("{}/checkpoint_status?incarnation_uuid={process}", of(&change.name));
    if !change.no_wait {
        // Another process in its place is refused: then it is not known what became of it.
        let last = |shown: &Value| shown.get("success").and_then(Value::as_u64);
        client.wait(&path, |shown| Ok(last(shown).is_some_and(|last| last >= number)))?;
    }
    let what = if change.no_wait { "is asked for a checkpoint" } else { "has taken a checkpoint" };
    change.common.show(&asked, |_| format!("pipeline {} {what}", change.name));
    Ok(())
}

fn done(change: &Change, client: &Client, what: &str) -> Result<(), Failure> {
    let name = &change.name;
    let shown = match change.common.json {
        true => client.json("GET", &status_of(name), None)?,
        false => Value::Null,
    };
    change.common.show(&shown, |_| format!("pipeline {name} {what}"));
    Ok(())
}
