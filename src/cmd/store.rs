pub fn run(_: &super::StoreCommand) -> super::Outcome {
    Ok(())
}
