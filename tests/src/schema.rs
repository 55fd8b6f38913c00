//! A check of JSON against the part of JSON Schema (2020-12) that OpenAPI documents use.
//!
//! It is stricter than the standard: a member that a schema doesn't declare is a fault, and so is a
//! keyword that isn't known here, so that nothing passes because it wasn't looked at.

use serde_json::Value;

/// What is wrong with `value` under `schema`, by path; empty where all is well. `document` is where
/// references lead.
pub fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    check(document, schema, value, "$")
}

/// Words that say nothing about what is valid.
const NOTES: &[&str] = &[
    "description",
    "example",
    "examples",
    "format",
    "title",
    "deprecated",
];

fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    match schema {
        Value::Bool(true) => Vec::new(),
        Value::Object(keywords) => {
            let rules = keywords.iter();
            let one = |(keyword, rule): (&String, &Value)| {
                obey(document, schema, keyword, rule, value, at)
            };
            rules.flat_map(one).collect()
        }
        _ => vec![format!("{at}: {schema} is no schema")],
    }
}

/// What is wrong under one keyword.
fn obey(
    document: &Value,
    schema: &Value,
    keyword: &str,
    rule: &Value,
    value: &Value,
    at: &str,
) -> Vec<String> {
    let fault = |wrong: bool, what: &str| match wrong {
        true => vec![format!("{at}: {value} {what}")],
        false => Vec::new(),
    };
    let listed = || rule.as_array().map_or(&[][..], Vec::as_slice);
    let members = || value.as_object().into_iter().flatten();
    match keyword {
        "$ref" => {
            let path = rule.as_str().unwrap_or_default().trim_start_matches('#');
            match document.pointer(path) {
                Some(schema) => check(document, schema, value, at),
                None => vec![format!("{at}: {rule} leads nowhere")],
            }
        }
        "type" => {
            let fits = is_a(value, rule) || listed().iter().any(|kind| is_a(value, kind));
            fault(!fits, &format!("is no {rule}"))
        }
        "enum" => fault(!listed().contains(value), &format!("is none of {rule}")),
        "minimum" => {
            let under = value.is_number() && value.as_f64() < rule.as_f64();
            fault(under, &format!("is under {rule}"))
        }
        "maximum" => {
            let over = value.is_number() && value.as_f64() > rule.as_f64();
            fault(over, &format!("is over {rule}"))
        }
        "oneOf" | "anyOf" => {
            let fits = |schema: &&Value| faults(document, schema, value).is_empty();
            let count = listed().iter().filter(fits).count();
            let wrong = count == 0 || (keyword == "oneOf" && count > 1);
            fault(wrong, &format!("fits {count} of {rule}"))
        }
        "allOf" => {
            let schemas = listed().iter();
            schemas
                .flat_map(|schema| check(document, schema, value, at))
                .collect()
        }
        "items" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            let one = |(n, item)| check(document, rule, item, &format!("{at}[{n}]"));
            items.flat_map(one).collect()
        }
        "required" => {
            let names = listed().iter().filter_map(Value::as_str);
            let absent = names.filter(|name| value.is_object() && value.get(name).is_none());
            absent
                .map(|name| format!("{at}: `{name}` is missing"))
                .collect()
        }
        "properties" => {
            let open = schema
                .get("additionalProperties")
                .is_some_and(Value::is_object);
            let one = |(name, member): (&String, &Value)| {
                let at = format!("{at}.{name}");
                match rule.get(name) {
                    Some(schema) => check(document, schema, member, &at),
                    None if open => Vec::new(),
                    None => vec![format!("{at}: is not declared")],
                }
            };
            members().flat_map(one).collect()
        }
        // What is not declared is a fault already.
        "additionalProperties" if rule == false => Vec::new(),
        "additionalProperties" => {
            let declared = schema.get("properties");
            let further =
                members().filter(|(name, _)| declared.and_then(|d| d.get(name)).is_none());
            let one = |(name, member)| check(document, rule, member, &format!("{at}.{name}"));
            further.flat_map(one).collect()
        }
        "propertyNames" => {
            let one =
                |(name, _): (&String, _)| check(document, rule, &Value::from(name.as_str()), at);
            members().flat_map(one).collect()
        }
        note if NOTES.contains(&note) => Vec::new(),
        other => vec![format!(
            "{at}: the keyword `{other}` is not known to this check"
        )],
    }
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pets() -> Value {
        json!({"components": {"schemas": {"Pet": {
            "type": "object", "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "legs": {"type": ["integer", "null"], "minimum": 0},
                "kind": {"type": "string", "enum": ["cat", "dog"]},
                "friends": {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}},
                "ages": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
        }}}})
    }

    #[test]
    fn what_fits_has_no_faults() {
        let schema = json!({"$ref": "#/components/schemas/Pet"});
        let pet = json!({"name": "Tom", "legs": null, "kind": "cat", "friends": [{"name": "Rex"}], "ages": {"a": 1}});
        assert_eq!(faults(&pets(), &schema, &pet), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_found_where_it_is() {
        let schema = json!({"$ref": "#/components/schemas/Pet"});
        for (pet, at) in [
            (json!({"legs": 4}), "`name` is missing"),
            (json!({"name": 1}), "$.name"),
            (json!({"name": "Tom", "legs": -1}), "$.legs"),
            (json!({"name": "Tom", "kind": "cow"}), "$.kind"),
            (
                json!({"name": "Tom", "friends": [{"name": null}]}),
                "$.friends[0].name",
            ),
            (json!({"name": "Tom", "ages": {"a": "b"}}), "$.ages.a"),
            (
                json!({"name": "Tom", "tail": true}),
                "$.tail: is not declared",
            ),
            (json!(["Tom"]), "is no"),
        ] {
            let found = faults(&pets(), &schema, &pet);
            assert!(
                found.iter().any(|fault| fault.contains(at)),
                "{pet}: {found:?}"
            );
        }
        let unknown = faults(&pets(), &json!({"not": {}}), &json!(1));
        assert_eq!(unknown.len(), 1);
        assert_eq!(
            faults(&pets(), &json!({"$ref": "#/nowhere"}), &json!(1)).len(),
            1
        );
        let either = json!({"oneOf": [{"type": "integer"}, {"type": "number"}]});
        assert_eq!(faults(&pets(), &either, &json!(1)).len(), 1, "it fits both");
    }
}
