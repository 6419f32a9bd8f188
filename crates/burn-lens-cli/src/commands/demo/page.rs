//! The page that the demonstration writes.

use burn_lens::Pretrained;
use burn_lens_viz::{Attention, Bar, Column, Page, Section, Token};

use super::{Ablation, Findings, Head};
use crate::next_tokens::percent;

/// How many heads the bar chart shows.
const MOST_HEADS: usize = 12;

/// Everything found, as a page.
pub(super) fn page(lens: &Pretrained, findings: &Findings) -> Page {
    let config = lens.model.config();
    Page {
        title: "A small language model, looked into".to_owned(),
        lead: format!(
            "The model bundled with burn-lens: {} layers of {} heads, {} parameters. Everything below was computed \
             from its activations.",
            config.n_layers,
            config.attention.n_heads,
            crate::report::grouped(lens.model.parameters().num_params()),
        ),
        sections: vec![
            next_token(findings),
            prompt_attention(findings),
            induction_scores(findings),
            induction_attention(findings),
            ablations(findings),
        ],
        footer: format!("Written by burn-lens {}. This file needs no network.", env!("CARGO_PKG_VERSION")),
    }
}

fn next_token(findings: &Findings) -> Section {
    let prompt = &findings.prompt;
    let token = |text: &String| Token { text: text.clone(), ..Token::default() };
    let row = |next: &crate::next_tokens::NextToken| {
        let token =
            next.token.as_ref().map_or_else(|| format!("#{}", next.id), |text| burn_lens_viz::visible(text));
        vec![token, format!("{:.3}", next.logit), percent(next.probability)]
    };
    Section::new("What comes next?", &prompt.verdict())
        .tokens(prompt.tokens.iter().map(token).collect())
        .table(
            vec![Column::text("next token"), Column::number("logit"), Column::number("probability")],
            prompt.next.iter().map(row).collect(),
        )
}

fn prompt_attention(findings: &Findings) -> Section {
    let prompt = &findings.prompt;
    let best = findings.induction.best();
    Section::new(
        "Where each head looks",
        "One picture for each layer and head, on the prompt above. A row is a token that attends, a column one that \
         is attended to; rows sum to 1.",
    )
    .attention(Attention {
        tokens: prompt.tokens.clone(),
        layers: prompt.patterns.layers.clone(),
        causal: true,
        first: (best.layer, best.head),
    })
}

fn induction_scores(findings: &Findings) -> Section {
    let induction = &findings.induction;
    let best = induction.best();
    let bar = |(head, score): (Head, f64)| Bar {
        label: format!("layer {}, head {}", head.layer, head.head),
        value: score,
        text: format!("{score:.3}"),
        strong: head == best,
    };
    Section::new("Induction heads", &induction.explanation())
        .bars(induction.ranked().into_iter().take(MOST_HEADS).map(bar).collect())
}

fn induction_attention(findings: &Findings) -> Section {
    let induction = &findings.induction;
    let best = induction.best();
    let title = format!("The induction head: {best}");
    Section::new(
        &title,
        "The first of these sequences. In the second copy, the stripe below the diagonal is the token that followed \
         the last time.",
    )
    .attention(Attention {
        tokens: induction.tokens.clone(),
        layers: induction.patterns.layers.clone(),
        causal: true,
        first: (best.layer, best.head),
    })
}

fn ablations(findings: &Findings) -> Section {
    let row = |ablation: &Ablation| {
        vec![
            ablation.label(),
            format!("{:.3}", ablation.loss),
            format!("{:+.3}", ablation.logit_difference),
            percent(ablation.probability),
        ]
    };
    let bar = |ablation: &Ablation| Bar {
        label: ablation.head.map_or_else(|| "nothing".to_owned(), |head| head.to_string()),
        value: ablation.loss,
        text: format!("{:.3}", ablation.loss),
        strong: ablation.head.is_none(),
    };
    let right = &findings.prompt.right;
    Section::new(
        "Setting a head to zero",
        "The loss on the second copy of the sequences (bars) says whether the head does what its picture suggests.",
    )
    .bars(findings.ablations.iter().map(bar).collect())
    .table(
        vec![
            Column::text("head set to zero"),
            Column::number("loss, second copy"),
            Column::number(&format!("logit of {right:?} minus the other name's")),
            Column::number(&format!("probability of {right:?}")),
        ],
        findings.ablations.iter().map(row).collect(),
    )
}
