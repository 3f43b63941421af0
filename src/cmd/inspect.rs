pub fn run(_: &super::InspectArgs) -> super::Outcome {
    Ok(())
}
