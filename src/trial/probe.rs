//! The probe: really imports what a recipe says that it needs.

/// Tries each module, goes on after a failure, and says what failed and why.
const SCRIPT: &str = "\
import importlib, sys
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed.append(name)
        print(f'import {name}: {type(error).__name__}: {error}', file=sys.stderr)
sys.exit(1 if failed else 0)
";

/// The command that imports these modules.
pub(super) fn command(modules: &[String]) -> Vec<String> {
    let fixed = ["python3", "-c", SCRIPT].map(str::to_owned);
    fixed.into_iter().chain(modules.iter().cloned()).collect()
}
