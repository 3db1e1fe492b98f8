use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_physical_expr::expressions::col;

use super::*;
use crate::circuit::plan::{TableNode, ViewNode};

fn schema(width: usize) -> SchemaRef {
    Arc::new(Schema::new((0..width).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect::<Vec<_>>()))
}

fn plan(nodes: Vec<(NodeKind, Vec<NodeId>, usize)>) -> CircuitPlan {
    let nodes = nodes.into_iter().map(|(kind, inputs, width)| Node {
        kind,
        inputs,
        schema: schema(width),
        label: String::new(),
    });
    let nodes: Vec<Node> = nodes.collect();
    let last = nodes.len() - 1;
    CircuitPlan {
        nodes,
        tables: vec![TableNode::new("t", 0)],
        views: vec![ViewNode { name: "v".to_owned(), node: last }],
    }
}

fn table(key: &[usize]) -> (NodeKind, Vec<NodeId>, usize) {
    (NodeKind::Table { primary_key: key.to_vec() }, vec![], 3)
}

fn group(input: NodeId, by: &[usize]) -> (NodeKind, Vec<NodeId>, usize) {
    (NodeKind::Aggregate { group: by.to_vec(), aggregates: vec![] }, vec![input], by.len())
}

fn project(input: NodeId, columns: &[usize]) -> (NodeKind, Vec<NodeId>, usize) {
    let exprs = columns.iter().map(|i| col(&format!("c{i}"), &schema(3)).unwrap()).collect();
    (NodeKind::Linear(vec![Stage::Project { exprs, schema: schema(columns.len()) }]), vec![input], columns.len())
}

fn join(left: NodeId, right: NodeId, on: usize) -> (NodeKind, Vec<NodeId>, usize) {
    let kind = NodeKind::Join { left_keys: vec![on], right_keys: vec![on], null_equals_null: false, filter: None };
    (kind, vec![left, right], 4)
}

/// Of each node: its stage, and the key that each port is exchanged by.
fn places(nodes: Vec<(NodeKind, Vec<NodeId>, usize)>, workers: usize) -> Vec<(usize, Vec<Option<Vec<usize>>>)> {
    let places = place(&plan(nodes), workers);
    places.into_iter().map(|p| (p.stage, p.ports.into_iter().map(|port| port.exchange).collect())).collect()
}

#[test]
fn one_worker_exchanges_nothing_and_has_one_stage() {
    let nodes = vec![table(&[0]), group(0, &[1]), group(1, &[]), join(0, 0, 2)];
    for (stage, ports) in places(nodes, 1) {
        assert_eq!(stage, 0);
        assert!(ports.iter().all(Option::is_none));
    }
}

#[test]
fn rows_are_exchanged_where_their_key_changes() {
    let got = places(vec![table(&[0]), group(0, &[1]), group(1, &[])], 4);
    let expected = vec![(0, vec![Some(vec![0])]), (1, vec![Some(vec![1])]), (2, vec![Some(vec![])])];
    assert_eq!(got, expected);
}

#[test]
fn rows_that_lie_right_already_stay() {
    // By the primary key, through a projection that moves the column, and again by a join on the group column.
    let nodes = vec![table(&[0]), project(0, &[2, 0]), group(1, &[1]), group(0, &[0]), join(2, 3, 0), group(4, &[0])];
    for (node, (stage, ports)) in places(nodes, 4).into_iter().enumerate().skip(1) {
        assert_eq!((stage, ports.iter().flatten().count()), (0, 0), "node {node}");
    }
    // The projection drops the key.
    let got = places(vec![table(&[0]), project(0, &[2, 1]), group(1, &[1])], 4);
    assert_eq!(got[2], (1, vec![Some(vec![1])]));
    // Of two columns distributed together one alone is not enough, nor is the other order.
    let got = places(vec![table(&[0, 1]), group(0, &[0]), group(0, &[1, 0]), group(0, &[0, 1])], 4);
    assert_eq!(got[1..].iter().map(|(stage, _)| *stage).collect::<Vec<_>>(), [1, 1, 0]);
}

#[test]
fn a_union_lies_by_what_its_inputs_have_in_common() {
    let union = |inputs: &[NodeId]| (NodeKind::Union, inputs.to_vec(), 1);
    let got = places(vec![table(&[0]), group(0, &[0]), group(0, &[1]), union(&[1, 2]), group(3, &[0])], 2);
    assert_eq!((got[3].0, got[4].0), (1, 1), "both inputs lie by their first column");
    let got = places(vec![table(&[]), table(&[0]), union(&[0, 1]), group(2, &[0])], 2);
    assert_eq!(got[3], (1, vec![Some(vec![0])]), "a table without a key lies anyhow");
}

#[test]
fn what_joins_share_is_exchanged_once() {
    let arrange = NodeKind::Arrange(Arrange { keys: vec![2], null_equals_null: false });
    let nodes = vec![table(&[]), (arrange, vec![0], 3), join(1, 1, 2), project(1, &[0, 2]), join(3, 3, 1)];
    let plan = plan(nodes.clone());
    assert_eq!(plan.readers(1), [(2, 0), (2, 1), (4, 0), (4, 1)]);
    let expected =
        [(0, vec![None]), (1, vec![Some(vec![2])]), (1, vec![None, None]), (1, vec![None]), (1, vec![None, None])];
    assert_eq!(places(nodes, 3), expected);
}
