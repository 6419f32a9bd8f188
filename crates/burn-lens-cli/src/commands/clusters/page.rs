//! What was found, as a page.

use burn_lens::analysis::clusters::HeadClusters;
use burn_lens_viz::{Column, Grid, Page, Section};

use super::{
    Place,
    describe::{self, Table},
};
use crate::{error::CliError, report::Align};

/// Everything, a section for each place.
pub(super) fn page(model: &str, places: &[Place<'_>]) -> Result<Page, CliError> {
    let mut sections = Vec::new();
    if places.len() > 1 {
        sections.push(with(Section::new("All places", ""), describe::summary(places)));
    }
    for place in places {
        if let Ok(clusters) = &place.swept.clusters {
            sections.extend(sections_of(place, clusters)?);
        }
    }
    Ok(Page {
        title: format!("Attention over examples: {model}"),
        lead: "Rows of a head's pattern are put into clusters by k-means, those of x and of y queries apart; the \
               number of clusters is the one of the highest silhouette."
            .to_owned(),
        sections,
        footer: format!("Written by burn-lens {}. This file needs no network.", env!("CARGO_PKG_VERSION")),
    })
}

/// The pictures of a place, then each kind of query, then the pathways.
fn sections_of(place: &Place<'_>, clusters: &HeadClusters) -> Result<Vec<Section>, CliError> {
    let title = place.title();
    let mut pictures = Section::new(&title, "");
    if let Some(figure) = place.figure() {
        let alt = format!("Attention of {title} in four quadrants, and the clusters of its rows");
        pictures = pictures.figure(figure.figure(&alt)?);
    }
    let sweep = describe::sweep_plot("Silhouette by the number of clusters", clusters);
    let mut sections = vec![pictures.figure(sweep.figure("Silhouette by the number of clusters")?)];
    for (name, role) in describe::roles(clusters) {
        let text = format!("{} {}", describe::signs(), describe::explained(role));
        let section = Section::new(&describe::headline(name, role), &text);
        sections
            .push(with(with(section, describe::members(place, role)), describe::coefficients(place, role)));
    }
    let text =
        "Mean attention from the clusters of this head (rows) to them (columns), over all heads of a layer.";
    let mut pathways = Section::new("Pathways", text);
    for (layer, attention) in clusters.pathways.iter().enumerate() {
        let names = describe::groups(clusters);
        let from = format!("layer {layer}: from");
        pathways = pathways.grid(Grid::heat_map([&from, "to"], names.clone(), names, &attention.concat()));
    }
    sections.push(pathways);
    Ok(sections)
}

fn with(section: Section, table: Table) -> Section {
    let column = |(name, align): &(String, Align)| match align {
        Align::Left => Column::text(name),
        Align::Right => Column::number(name),
    };
    let columns: Vec<Column> = table.columns.iter().map(column).collect();
    // A place without clusters has a reason in their stead.
    let padded = table.rows.into_iter().map(|mut row| {
        row.resize(columns.len(), String::new());
        row
    });
    let rows = padded.collect();
    section.table(columns, rows)
}
