import json
import mlflow

mlflow.set_tracking_uri("sqlite:///mlflow.db")
client = mlflow.MlflowClient()
experiment = client.get_experiment("1")
[run] = client.search_runs(["1"])
print(json.dumps({
    "experiment": experiment.name,
    "status": run.info.status,
    "params": run.data.params,
    "tags": run.data.tags,
    "losses": [metric.value for metric in client.get_metric_history(run.info.run_id, "train_loss")],
    "artifacts": [artifact.path for artifact in client.list_artifacts(run.info.run_id)],
}))
