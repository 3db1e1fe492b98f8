//! `backstay recover`: ways on for a stopped pipeline whose logged steps cannot be run again. Changes nothing without being told to.

use std::path::PathBuf;

use super::Failure;
use crate::pipeline::push::is_pushed;
use crate::pipeline::recovery::{Choice, Survey};
use crate::pipeline::savepoint::{open, report};

/// What `recover` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without a choice it shows what is there to choose about, and changes nothing.

Either choice makes the pipeline a new incarnation: its outputs begin anew, and what they have
delivered so far is left as it is. A file, topic, table or prefix that holds something is refused
at the next run, so that nothing wrong is ever added to it: give the connectors other ones, or
empty them.")]
pub struct Args {
    /// The data directory.
    data_dir: PathBuf,
    /// Give up the rows that this input (TABLE.CONNECTOR) gave in the logged steps: they run again
    /// without them. It goes on with what its source still has.
    #[arg(long, value_name = "INPUT", conflicts_with = "new_incarnation")]
    accept_loss: Option<String>,
    /// Give up rows of this step and later ones only.
    #[arg(long, value_name = "STEP", requires = "accept_loss")]
    from_step: Option<u64>,
    /// Go back to the checkpoint: the logged steps behind it count for nothing, and the inputs are read
    /// again from there on.
    #[arg(long)]
    new_incarnation: bool,
}

/// Runs the command.
pub(super) fn recover(args: &Args) -> Result<(), Failure> {
    let dir = &args.data_dir;
    report(dir)?;
    let store = open(dir)?;
    let survey = Survey::of(&store)?;
    let choice = match (&args.accept_loss, args.new_incarnation) {
        (Some(connector), _) => Choice::AcceptLoss { connector: connector.clone(), from: args.from_step },
        (None, true) => Choice::BeginAnew,
        (None, false) => {
            show(&survey, &dir.display().to_string());
            return Ok(());
        }
    };
    let (step, name) = (survey.state.step, survey.state.name.clone());
    let last = survey.steps.last().map_or(step, |s| s.step);
    let incarnation = uuid::Uuid::new_v4();
    let outputs: Vec<String> = survey.state.outputs.keys().cloned().collect();
    let recovery = survey.choose(&store, &choice, incarnation)?;
    match (&choice, recovery.losses.last()) {
        (Choice::AcceptLoss { .. }, Some(loss)) => outln!(
            "pipeline {name}: {} rows of {} in steps {} to {} are given up; steps {} to {last} run again without them",
            loss.rows,
            loss.connector,
            loss.from,
            loss.to,
            step + 1
        ),
        _ => {
            outln!("pipeline {name} goes on behind step {step}; logged steps {} to {last} count for nothing", step + 1)
        }
    }
    outln!("it is incarnation {incarnation} now; outputs begin anew with step {}:", step + 1);
    for output in outputs {
        outln!(
            "  {output}: where it has written, what is there must be moved away or emptied, or the connector be given another place"
        );
    }
    Ok(())
}

fn show(survey: &Survey, dir: &str) {
    let Survey { state, steps, .. } = survey;
    outln!("pipeline {}, incarnation {}: the checkpoint is of step {}", state.name, state.incarnation, state.step);
    match steps.last() {
        None => outln!("no step is logged behind it"),
        Some(last) => outln!("logged behind it: steps {} to {}, which took", state.step + 1, last.step),
    }
    let connectors = survey.connectors();
    for connector in &connectors {
        let (mut rows, mut places) = (0, Vec::<(String, u64, u64)>::new());
        for batch in survey.batches(connector, 0) {
            rows += batch.rows;
            for range in &batch.descriptor.ranges {
                match places.iter_mut().find(|(name, ..)| *name == range.partition) {
                    Some(place) => place.2 = range.end,
                    None => places.push((range.partition.clone(), range.start, range.end)),
                }
            }
        }
        if rows > 0 || !places.is_empty() {
            outln!("  {rows} rows of {connector}");
            for (partition, start, end) in places {
                outln!("    {partition}, {start} to {end}");
            }
        }
    }
    for (output, known) in &state.outputs {
        outln!("output {output}: has delivered step {} at least", known.sink.step);
    }
    outln!("\nif these steps cannot be run again, or a source cannot be read on, choose:");
    for connector in connectors.iter().filter(|c| !is_pushed(c)) {
        outln!("  backstay recover {dir} --accept-loss {connector}");
    }
    outln!("      the logged steps run again without that input's rows (--from-step N: only from step N on)");
    outln!("  backstay recover {dir} --new-incarnation");
    outln!("      the logged steps count for nothing; inputs are read again behind step {}", state.step);
    outln!("either way outputs begin anew, as in a savepoint's copy. Nothing has been changed.");
}
