//! Control flow: nodes whose attributes are graphs.

use std::collections::HashMap;

use super::attributes::Attributes;
use super::operators::ParseError;
use super::{Lowering, spec};
use crate::graph::{Block, Op, Scan};
use crate::onnx::proto::GraphProto;

impl Lowering {
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
                let opset = self.opsets.get("").copied().unwrap_or(1);
                if opset < 9 {
                    return Err("its form before opset 9 is not supported".into());
                }
                let body = a.graph("body")?;
                let scanned = a.int("num_scan_inputs")?.map(usize::try_from);
                let Some(Ok(scanned)) = scanned.filter(|n| n.is_ok_and(|n| n <= inputs)) else {
                    return Err("attribute `num_scan_inputs` is missing or too large".into());
                };
                let stacked = outputs.saturating_sub(inputs - scanned);
                let scan = Scan {
                    inputs: directions(a, "scan_input", scanned)?,
                    outputs: directions(a, "scan_output", stacked)?,
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
fn directions(a: &mut Attributes, what: &str, count: usize) -> Result<Vec<(i64, bool)>, String> {
    let axes = a.ints(&format!("{what}_axes"))?;
    let backward = a.ints(&format!("{what}_directions"))?;
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
