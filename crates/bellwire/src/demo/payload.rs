//! What the demo publishes: payloads of the shapes that GitHub, Stripe and Shopify send (made up, in full).

/// One payload.
pub struct Payload {
    /// Whose shape it has.
    pub from: &'static str,
    pub event_type: &'static str,
    pub text: &'static str,
}

pub const PAYLOADS: [Payload; 3] = [
    Payload { from: "GitHub push", event_type: "github.push", text: include_str!("../../data/demo/github_push.json") },
    Payload {
        from: "Stripe invoice.paid",
        event_type: "invoice.paid",
        text: include_str!("../../data/demo/stripe_invoice_paid.json"),
    },
    Payload {
        from: "Shopify orders/create",
        event_type: "orders.create",
        text: include_str!("../../data/demo/shopify_orders_create.json"),
    },
];
