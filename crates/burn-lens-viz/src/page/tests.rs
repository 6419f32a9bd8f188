//! The page holds what it was given, escaped, and refuses what does not fit.

use super::*;

const HOSTILE: &str = "</script><script>alert(\"x\")</script>'\u{2028}\u{2029}<!--&";

fn page(section: Section) -> Result<String, VizError> {
    Page { title: "T".to_owned(), sections: vec![section], ..Page::default() }.to_html()
}

fn attention(tokens: usize, layers: Vec<Vec<Vec<f64>>>) -> Attention {
    let tokens = (0..tokens).map(|at| format!("t{at}")).collect();
    Attention { tokens, layers, causal: true, first: (0, 0) }
}

#[test]
fn hostile_text_is_inert_everywhere() {
    let token = Token { text: HOSTILE.to_owned(), strength: 0.5, note: HOSTILE.to_owned() };
    let bar = Bar { label: HOSTILE.to_owned(), value: 1.0, text: HOSTILE.to_owned(), strong: true };
    let hostile = Attention { tokens: vec![HOSTILE.to_owned()], ..attention(1, vec![vec![vec![1.0]]]) };
    let section = Section::new(HOSTILE, HOSTILE)
        .tokens(vec![token])
        .table(vec![Column::text(HOSTILE)], vec![vec![HOSTILE.to_owned()]])
        .bars(vec![bar])
        .grid(Grid {
            row_axis: HOSTILE.to_owned(),
            column_axis: HOSTILE.to_owned(),
            rows: vec![HOSTILE.to_owned()],
            columns: vec![HOSTILE.to_owned()],
            cells: vec![vec![Cell { text: HOSTILE.to_owned(), value: -1.0, note: HOSTILE.to_owned() }]],
        })
        .scatter(Scatter {
            x_axis: HOSTILE.to_owned(),
            y_axis: HOSTILE.to_owned(),
            points: vec![Point { x: 1.0, y: -1.0, note: HOSTILE.to_owned() }],
        })
        .attention(hostile);
    let page = Page {
        title: HOSTILE.to_owned(),
        lead: HOSTILE.to_owned(),
        footer: HOSTILE.to_owned(),
        sections: vec![section],
    };
    let html = page.to_html().unwrap();
    let empty = Page::default().to_html().unwrap();
    let more = |text: &str| html.matches(text).count() - empty.matches(text).count();
    assert_eq!([more("<script"), more("</script")], [1, 1], "the data of the attention, and nothing else");
    assert_eq!([more("alert(\""), more("<!--")], [0, 0]);
}

#[test]
fn a_page_needs_nothing_else() {
    let html =
        page(Section::new("A", "b").attention(attention(2, vec![vec![vec![1.0, 0.0, 0.5, 0.5]]]))).unwrap();
    let html = html.replace("http://www.w3.org/2000/svg", ""); // a name, not an address
    for forbidden in ["http:", "https:", "src=", "@import", "<link", "url("] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn rendering_twice_gives_the_same_bytes() {
    let section = Section::new("A", "b").attention(attention(2, vec![vec![vec![1.0, 0.0, 0.5, 0.5]]]));
    assert_eq!(page(section.clone()).unwrap(), page(section).unwrap());
}

#[test]
fn a_causal_pattern_is_sent_without_its_empty_half() {
    let data =
        attention(3, vec![vec![vec![1.0, 9.0, 9.0, 0.5, 0.5, 9.0, 0.2, 0.3, 0.500_04]]]).data("A").unwrap();
    assert_eq!(data.layers[0][0], [1.0, 0.5, 0.5, 0.2, 0.3, 0.5]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |attention: Attention| page(Section::new("A", "").attention(attention)).unwrap_err();
    assert!(matches!(refused(attention(2, vec![vec![vec![0.0; 3]]])), VizError::MatrixSize { found: 3, .. }));
    let uneven = vec![vec![vec![0.0; 4]; 2], vec![vec![0.0; 4]]];
    assert!(matches!(
        refused(attention(2, uneven)),
        VizError::HeadCount { layer: 1, expected: 2, found: 1, .. }
    ));
    assert!(matches!(refused(attention(0, vec![vec![vec![]]])), VizError::Empty { .. }));
    assert!(matches!(refused(attention(1, vec![])), VizError::Empty { .. }));
    let nan = attention(1, vec![vec![vec![f64::NAN]]]);
    assert!(matches!(refused(nan), VizError::NotFinite { .. }));
    let absent = Attention { first: (0, 1), ..attention(1, vec![vec![vec![1.0]]]) };
    assert!(matches!(refused(absent), VizError::NoSuchHead { head: 1, heads: 1, .. }));
    let table =
        Section::new("A", "").table(vec![Column::text("a"), Column::number("b")], vec![vec!["1".to_owned()]]);
    assert!(matches!(page(table).unwrap_err(), VizError::RowLength { expected: 2, found: 1, .. }));
    let bar = Bar { label: String::new(), value: f64::INFINITY, text: String::new(), strong: false };
    assert!(matches!(page(Section::new("A", "").bars(vec![bar])).unwrap_err(), VizError::NotFinite { .. }));
}

#[test]
fn a_grid_is_colored_by_sign_and_magnitude() {
    let names = |letter: &str| (0..2).map(|at| format!("{letter}{at}")).collect::<Vec<_>>();
    let grid = Grid::heat_map(["layer", "head"], names("l"), names("h"), &[0.5, -1.0, 0.0, 0.25]);
    let html = page(Section::new("A", "").grid(grid.clone())).unwrap();
    for part in
        ["--strength: 50.0%", "class=\"negative\"", "layer l0, head h1: -1.0000", "from -1.0000 to 0.5000"]
    {
        assert!(html.contains(part), "{part}");
    }
    let short = Grid { rows: names("l")[..1].to_vec(), ..grid.clone() };
    assert!(matches!(page(Section::new("A", "").grid(short)).unwrap_err(), VizError::MatrixSize { .. }));
    let nan = Grid::heat_map(["layer", "head"], names("l"), names("h"), &[f64::NAN; 4]);
    assert!(matches!(page(Section::new("A", "").grid(nan)).unwrap_err(), VizError::NotFinite { .. }));
    assert!(matches!(page(Section::new("A", "").grid(Grid::default())).unwrap_err(), VizError::Empty { .. }));
}
