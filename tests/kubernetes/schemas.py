#!/usr/bin/env python3
"""Writes schemas.json: what the custom resources of KServe and Knative look like.

    tests/kubernetes/schemas.py FOLDER

FOLDER holds the published definitions, Apache-2.0 both:

    serving.kserve.io_servingruntimes.yaml     kserve/kserve, config/crd/full
    serving.kserve.io_inferenceservices.yaml   the same
    service.yaml                               knative/serving, config/core/300-resources

Kept are names, types and choices of the parts that examples/kubernetes uses; a key that the
definitions don't know is refused by what is written here. Needs PyYAML.
"""

import json
import sys
from pathlib import Path

import yaml

KEPT = {"type", "enum", "required", "pattern", "minimum", "maximum"}
# Parts that are large and not used; whoever begins to use one takes it off the list.
LEFT_OUT = {"affinity", "workerSpec", "builtInAdapter", "ephemeralContainers"}
PREDICTOR = {
    "annotations", "labels", "minReplicas", "maxReplicas", "scaleMetric", "scaleMetricType",
    "scaleTarget", "containerConcurrency", "timeout", "serviceAccountName", "model", "volumes",
    "containers",
}  # fmt: skip
KINDS = [
    ("serving.kserve.io_servingruntimes.yaml", "v1alpha1"),
    ("serving.kserve.io_inferenceservices.yaml", "v1beta1"),
    ("service.yaml", "v1"),
]


def strict(schema: dict) -> dict:
    """JSON Schema of a schema of Kubernetes, in which unknown keys are an error."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: value for key, value in schema.items() if key in KEPT}
    if "items" in schema:
        found["items"] = strict(schema["items"])
    if "properties" in schema:
        properties = schema["properties"].items()
        found["properties"] = {
            name: strict(value) for name, value in properties if name not in LEFT_OUT
        }
    if isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = strict(schema["additionalProperties"])
    elif "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def main() -> None:
    schemas = {}
    for file, version in KINDS:
        definition = yaml.safe_load((Path(sys.argv[1]) / file).read_text())["spec"]
        (found,) = (given for given in definition["versions"] if given["name"] == version)
        spec = found["schema"]["openAPIV3Schema"]["properties"]["spec"]
        if definition["names"]["kind"] == "InferenceService":
            predictor = spec["properties"]["predictor"]
            kept = {k: v for k, v in predictor["properties"].items() if k in PREDICTOR}
            predictor["properties"] = kept
            spec["properties"] = {"predictor": predictor}
        name = f"{definition['group']}/{version}/{definition['names']['kind']}"
        schemas[name] = strict(spec)
    lines = [f"{json.dumps(name)}: {json.dumps(schema)}" for name, schema in schemas.items()]
    target = Path(__file__).with_name("schemas.json")
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
