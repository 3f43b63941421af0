//! One process for each GPU: programs of PyTorch are started under torchrun (`torch.distributed.run`), unless they see to
//! that themselves.
//!
//! A job is on one machine and alone on its loopback, so the meeting place of its processes is a fixed port there, and no
//! name has to be resolved.

use gap_handover::declared::{DeclaredJob, DeclaredKind};

/// Trainers on PyTorch, whose scripts train on one GPU unless there is a process for each.
const PYTORCH: [&str; 2] = ["transformers", "trl"];
/// Programs that start one process for each GPU themselves.
const LAUNCHERS: [&str; 4] = ["accelerate", "deepspeed", "torch.distributed.run", "torchrun"];
/// What stands for the number of GPUs in a command: who asks for it sees to its processes itself.
pub const GPUS: &str = "{gpus}";
/// Where the processes of a job meet.
const MEETING: [&str; 2] = ["--master-addr=127.0.0.1", "--master-port=29500"];

/// Whether the program trains on one GPU only, whatever it is given.
pub fn is_for_one_gpu(declared: &DeclaredJob) -> bool {
    declared.kind == DeclaredKind::Train && declared.engine.as_deref() == Some(super::command::GAP_TRAIN)
}

/// The command that runs these words with one process for each of so many GPUs.
pub fn on(declared: &DeclaredJob, gpus: u32, words: Vec<String>) -> Vec<String> {
    let is_pytorch = declared.engine.as_deref().is_some_and(|engine| PYTORCH.contains(&engine));
    if declared.kind != DeclaredKind::Train || gpus < 2 || !is_pytorch || launches_itself(&words) {
        return words;
    }
    // Its own interpreter has the torch that it runs with; other programs are started by name.
    let python = words.first().filter(|program| name_of(program).starts_with("python"));
    let mut command = match python {
        Some(python) => vec![python.clone(), "-m".to_owned(), "torch.distributed.run".to_owned()],
        None => vec!["torchrun".to_owned()],
    };
    command.extend(["--nnodes=1".to_owned(), format!("--nproc-per-node={gpus}")]);
    command.extend(MEETING.map(str::to_owned));
    // The words as they are, flags of the interpreter and modules included.
    command.push("--no-python".to_owned());
    command.extend(words);
    command
}

fn launches_itself(words: &[String]) -> bool {
    words.iter().any(|word| LAUNCHERS.contains(&name_of(word)) || word.contains(GPUS))
}

fn name_of(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn started(engine: &str, kind: DeclaredKind, gpus: u32, words: &str) -> String {
        let declared = DeclaredJob {
            name: "x".into(),
            kind,
            image: "os".into(),
            run: Vec::new(),
            engine: Some(engine.into()),
            gpus,
            model: None,
            datasets: Vec::new(),
            parameters: serde_json::Map::new(),
            length: None,
            concurrency: None,
            endpoints: BTreeMap::new(),
        };
        on(&declared, gpus, words.split(' ').map(str::to_owned).collect()).join(" ")
    }

    const OPTIONS: &str = "--nnodes=1 --nproc-per-node=4 --master-addr=127.0.0.1 --master-port=29500 --no-python";

    #[test]
    fn programs_of_pytorch_get_one_process_for_each_gpu() {
        for engine in PYTORCH {
            let expected =
                format!("/usr/bin/python3 -m torch.distributed.run {OPTIONS} /usr/bin/python3 -u /srv/train.py a");
            assert_eq!(started(engine, DeclaredKind::Train, 4, "/usr/bin/python3 -u /srv/train.py a"), expected);
        }
        assert_eq!(started("trl", DeclaredKind::Train, 4, "trl sft"), format!("torchrun {OPTIONS} trl sft"));
    }

    #[test]
    fn one_gpu_other_engines_and_those_that_see_to_it_themselves_are_left_alone() {
        for (engine, kind, gpus, words) in [
            ("trl", DeclaredKind::Train, 1, "python3 x.py"),
            ("trl", DeclaredKind::Train, 0, "python3 x.py"),
            ("gap-train", DeclaredKind::Train, 4, "gap-train run"),
            ("other", DeclaredKind::Train, 4, "python3 x.py"),
            ("transformers", DeclaredKind::Serve, 4, "python3 x.py"),
            ("trl", DeclaredKind::Train, 4, "accelerate launch x.py"),
            ("trl", DeclaredKind::Train, 4, "/usr/local/bin/torchrun x.py"),
            ("trl", DeclaredKind::Train, 4, "python3 -m torch.distributed.run x.py"),
            ("trl", DeclaredKind::Train, 4, "python3 drivers/sft.py /run/job/job.json --processes {gpus}"),
        ] {
            assert_eq!(started(engine, kind, gpus, words), words);
        }
    }
}
