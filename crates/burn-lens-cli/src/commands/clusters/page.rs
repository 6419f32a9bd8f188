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
            sections.push(section(place, clusters)?);
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

fn section(place: &Place<'_>, clusters: &HeadClusters) -> Result<Section, CliError> {
    let mut text = Vec::new();
    for (name, role) in describe::roles(clusters) {
        text.push(format!("{}.", describe::headline(name, role)));
    }
    let mut section = Section::new(&place.title(), &text.join(" "));
    if let Some(figure) = place.figure() {
        let alt = format!("Attention of {} in four quadrants, and the clusters of its rows", place.title());
        section = section.figure(figure.figure(&alt)?);
    }
    let sweep = describe::sweep_plot("Silhouette by the number of clusters", clusters);
    section = section.figure(sweep.figure("Silhouette by the number of clusters")?);
    for (_, role) in describe::roles(clusters) {
        section = with(section, describe::members(place, role));
        section = with(section, describe::coefficients(place, role));
    }
    for (layer, attention) in clusters.pathways.iter().enumerate() {
        let names = describe::groups(clusters);
        let axes = [format!("layer {layer}: from"), "to".to_owned()];
        let axes = [axes[0].as_str(), axes[1].as_str()];
        section = section.grid(Grid::heat_map(axes, names.clone(), names, &attention.concat()));
    }
    Ok(section)
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
