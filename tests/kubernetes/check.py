"""Checks manifests against the published schemas: check.py VERSION FILE…

Kubernetes' own kinds by kubernetes-validate, in its strict schemas of that VERSION; custom resources
by schemas.json. Prints a line for each document, and ends with 1 if any is wrong.
"""

import json
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

SCHEMAS = json.loads(Path(__file__).with_name("schemas.json").read_text())


def wrong(document: dict, version: str) -> list[str]:
    kind = f"{document['apiVersion']}/{document['kind']}"
    if kind in SCHEMAS:
        if not document.get("metadata", {}).get("name"):
            return ["metadata.name is missing"]
        validator = jsonschema.Draft202012Validator(SCHEMAS[kind])
        errors = validator.iter_errors(document["spec"])
        return [f"{error.json_path}: {error.message}" for error in errors]
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [str(error).split("\n")[0]]
    return []


def main() -> int:
    version, *files = sys.argv[1:]
    failed = False
    for file in files:
        for document in yaml.safe_load_all(Path(file).read_text()):
            found = wrong(document, version)
            name = f"{document['kind']} in {Path(file).name}"
            print(f"{name}: {'; '.join(found) or 'valid'}")
            failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
