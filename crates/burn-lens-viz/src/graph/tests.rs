//! Drawings of small graphs.

use super::*;

fn row(label: &str, nodes: &[&str]) -> GraphRow {
    GraphRow { label: label.to_owned(), nodes: nodes.iter().map(|&node| node.to_owned()).collect() }
}

fn edge(from: &str, to: &str, port: &str, value: f64) -> GraphEdge {
    GraphEdge { from: from.to_owned(), to: to.to_owned(), port: port.to_owned(), value }
}

fn graph(edges: Vec<GraphEdge>) -> Graph {
    let rows = vec![
        row("in <b>", &["embed"]),
        row("heads", &["a & b", "c", "unused"]),
        row("nobody", &["also unused"]),
        row("out", &["logits"]),
    ];
    Graph { title: "t \"u\" <v>".to_owned(), rows, edges, signs: ["raises".to_owned(), "lowers".to_owned()] }
}

#[test]
fn everything_is_drawn_once_and_escaped() {
    let edges = vec![
        edge("embed", "a & b", "v", -2.0),
        edge("a & b", "logits", "", 1.0),
        edge("embed", "logits", "", 0.1),
    ];
    let svg = graph(edges).to_svg().unwrap();
    assert_eq!(svg.matches("<path ").count(), 3, "{svg}");
    assert!(svg.contains("<title>embed → a &amp; b.v: -2.0000</title>"), "{svg}");
    assert!(svg.contains("t &quot;u&quot; &lt;v&gt;") && svg.contains("in &lt;b&gt;"), "{svg}");
    // What no edge touches is not there.
    assert!(!svg.contains("unused") && !svg.contains("nobody"), "{svg}");
    // The larger, the wider; the sign is the color.
    assert!(svg.contains("stroke=\"#0072b2\" stroke-width=\"7.00\""), "{svg}");
    assert!(svg.contains("stroke=\"#d55e00\" stroke-width=\"4.10\""), "{svg}");
}

#[test]
fn higher_rows_are_higher_up_and_ports_stand_side_by_side() {
    let edges = ["v", "q", "k"].map(|port| edge("embed", "c", port, 1.0));
    let layout = graph(edges.to_vec());
    let layout = layout.layout().unwrap();
    assert!(layout.places["embed"].y > layout.places["c"].y);
    let [v, q, k] = edges.each_ref().map(|edge| layout.port_x(edge));
    assert!(q < k && k < v, "{q} {k} {v}");
}

#[test]
fn long_edges_pass_beside_the_nodes_between() {
    let places = [Place { row: 1, x: 100.0, y: 50.0 }, Place { row: 2, x: 100.0, y: 0.0 }];
    let path = route([100.0, 100.0], [100.0, 10.0], (0, 2), &places, 0);
    assert!(path.contains("V35.0"), "straight along the node: {path}");
    assert!(!path.contains("100.0 65.0"), "{path}");
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let said = |edges: Vec<GraphEdge>| graph(edges).to_svg().unwrap_err().to_string();
    assert!(said(vec![]).contains("empty"));
    assert!(said(vec![edge("embed", "c", "", f64::NAN)]).contains("NaN"));
    assert!(said(vec![edge("embed", "nowhere", "", 1.0)]).contains("`nowhere`"));
    assert!(said(vec![edge("logits", "embed", "", 1.0)]).contains("upward"));
}
