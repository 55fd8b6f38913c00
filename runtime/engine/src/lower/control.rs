//! Control flow: nodes whose attributes are graphs.

use std::collections::HashMap;

use super::attributes::Attributes;
use super::operators::ParseError;
use super::{Lowering, spec};
use crate::graph::{Block, Op, Scan};
use crate::onnx::proto::GraphProto;

impl Lowering<'_> {
    /// A node of control flow, or nothing where the operator is another. `inputs` and
    /// `outputs` are how many the node has.
    pub(super) fn control(
        &mut self,
        operator: &str,
        a: &mut Attributes,
        inputs: usize,
        outputs: usize,
    ) -> Result<Option<Op>, ParseError> {
        Ok(Some(match operator {
            "If" => {
                let (then, otherwise) = (a.graph("then_branch")?, a.graph("else_branch")?);
                Op::If {
                    then: self.body(then, 0, outputs)?,
                    otherwise: self.body(otherwise, 0, outputs)?,
                }
            }
            "Loop" => {
                let body = a.graph("body")?;
                let states = inputs.saturating_sub(2);
                let declared = body.output.iter().skip(1 + states);
                Op::Loop {
                    stacked: declared.map(|info| spec(info).ok()).collect(),
                    body: self.body(body, 2 + states, 1 + outputs)?,
                }
            }
            "Scan" => {
                let batched = self.opsets.get("").copied().unwrap_or(1) < 9;
                let inputs = inputs.saturating_sub(usize::from(batched));
                let body = a.graph("body")?;
                let scanned = a.int("num_scan_inputs")?.map(usize::try_from);
                let Some(Ok(scanned)) = scanned.filter(|n| n.is_ok_and(|n| n <= inputs)) else {
                    return Err("attribute `num_scan_inputs` is missing or too large".into());
                };
                let stacked = outputs.saturating_sub(inputs - scanned);
                let scan = match batched {
                    true => Scan {
                        inputs: directions(a, None, "directions", scanned)?,
                        outputs: vec![(0, false); stacked],
                        batched,
                    },
                    false => Scan {
                        inputs: directions(
                            a,
                            Some("scan_input_axes"),
                            "scan_input_directions",
                            scanned,
                        )?,
                        outputs: directions(
                            a,
                            Some("scan_output_axes"),
                            "scan_output_directions",
                            stacked,
                        )?,
                        batched,
                    },
                };
                let body = self.body(body, inputs, outputs)?;
                Op::Scan { body, scan }
            }
            "SequenceMap" => {
                let body = a.graph("body")?;
                let body = self.body(body, inputs, outputs)?;
                Op::SequenceMap { body }
            }
            _ => return Ok(None),
        }))
    }

    /// A body, which takes and gives so many values.
    fn body(
        &mut self,
        graph: GraphProto,
        inputs: usize,
        outputs: usize,
    ) -> Result<Block, ParseError> {
        let (takes, gives) = (graph.input.len(), graph.output.len());
        if takes != inputs || gives != outputs {
            return Err(format!(
                "a body takes {takes} values and gives {gives}, expected {inputs} and {outputs}"
            )
            .into());
        }
        self.scopes.push(HashMap::new());
        let given = graph.input.iter().map(|input| self.define(&input.name));
        let given = given.collect::<Result<Vec<_>, _>>()?;
        let mut block = self.block(graph)?;
        block.inputs = given;
        Ok(block)
    }
}

/// An axis for each scanned value, and whether it is walked backward.
fn directions(
    a: &mut Attributes,
    axes: Option<&str>,
    backward: &str,
    count: usize,
) -> Result<Vec<(i64, bool)>, String> {
    let axes = axes.map(|name| a.ints(name)).transpose()?.flatten();
    let backward = a.ints(backward)?;
    let axes = axes.unwrap_or_else(|| vec![0; count]);
    let backward = backward.unwrap_or_else(|| vec![0; count]);
    if axes.len() != count || backward.len() != count {
        return Err(format!(
            "{count} values, but another number of axes or directions"
        ));
    }
    let pairs = axes.into_iter().zip(backward);
    Ok(pairs
        .map(|(axis, backward)| (axis, backward != 0))
        .collect())
}
