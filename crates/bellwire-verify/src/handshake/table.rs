//! The flows, one row each: what a request looks like, what must hold, what is answered.

use super::challenge::{At, Shape};
use super::step::{Acknowledgement, Guard, Reply, Step, When};
use super::{Flow, confirm, hook};

/// Without exactly this, Salesforce repeats the message for a day.
const SALESFORCE: &str = concat!(
    r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>"#,
    r#"<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></notificationsResponse>"#,
    "</soapenv:Body></soapenv:Envelope>",
);

/// The same permission to send for CloudEvents and for Event Grid in that schema.
const CLOUDEVENTS: Step = Step {
    method: "OPTIONS",
    when: &[],
    guards: &[Guard::Open],
    challenge: Some((At::Header("WebHook-Request-Origin"), Shape::Token)),
    reply: Reply::Code(hook::cloudevents),
};

/// The secret of a subscription comes in a header while it is being made, and goes back in the same header.
const HOOK_SECRET: Step = Step {
    method: "POST",
    when: &[],
    guards: &[Guard::Open],
    challenge: Some((At::Header("X-Hook-Secret"), Shape::HeaderValue)),
    reply: Reply::Settle { header: Some("X-Hook-Secret"), name: "X-Hook-Secret", is_for_operator: false },
};

const fn step(
    method: &'static str,
    when: &'static [When],
    guards: &'static [Guard],
    challenge: Option<(At, Shape)>,
    reply: Reply,
) -> Step {
    Step { method, when, guards, challenge, reply }
}

const fn flow(id: &'static str, name: &'static str, reply_within_s: Option<u64>, steps: &'static [Step]) -> Flow {
    Flow { id, name, also: &[], reply_within_s, settings: &[], steps, acknowledgement: Acknowledgement::Empty }
}

impl Flow {
    const fn also(mut self, names: &'static [&'static str]) -> Self {
        self.also = names;
        self
    }

    const fn needing(mut self, names: &'static [&'static str]) -> Self {
        self.settings = names;
        self
    }

    const fn acknowledged(mut self, acknowledgement: Acknowledgement) -> Self {
        self.acknowledgement = acknowledgement;
        self
    }
}

pub(super) const FLOWS: &[Flow] = &[
    flow(
        "slack",
        "Slack url_verification",
        Some(3),
        &[step(
            "POST",
            &[When::Is(At::Json("/type"), "url_verification")],
            &[Guard::Signed],
            Some((At::Json("/challenge"), Shape::Line)),
            Reply::Text,
        )],
    ),
    flow(
        "meta",
        "Meta / WhatsApp / Instagram hub.challenge",
        None,
        &[step(
            "GET",
            &[],
            &[
                Guard::Mode(At::Query("hub.mode"), "subscribe", 403),
                Guard::Agreed(At::Query("hub.verify_token"), "verify_token", 403),
            ],
            Some((At::Query("hub.challenge"), Shape::Line)),
            Reply::Text,
        )],
    )
    .needing(&["verify_token"]),
    flow(
        "zoom",
        "Zoom endpoint.url_validation",
        Some(3),
        &[step(
            "POST",
            &[When::Is(At::Json("/event"), "endpoint.url_validation")],
            &[Guard::Signed],
            Some((At::Json("/payload/plainToken"), Shape::Token)),
            Reply::Code(hook::zoom),
        )],
    ),
    flow("trello", "Trello HEAD", None, &[step("HEAD", &[], &[Guard::Open], None, Reply::Empty(200))]),
    flow("intercom", "Intercom HEAD", None, &[step("HEAD", &[], &[Guard::Open], None, Reply::Empty(200))]),
    flow("asana", "Asana X-Hook-Secret", Some(10), &[HOOK_SECRET]),
    flow("clio", "Clio X-Hook-Secret", None, &[HOOK_SECRET]),
    flow(
        "microsoft-graph",
        "Microsoft Graph validationToken",
        Some(10),
        &[step("POST", &[], &[Guard::Open], Some((At::Query("validationToken"), Shape::Line)), Reply::Text)],
    ),
    flow(
        "sharepoint",
        "SharePoint validationtoken",
        Some(5),
        &[step("POST", &[], &[Guard::Open], Some((At::Query("validationtoken"), Shape::Line)), Reply::Text)],
    ),
    flow(
        "okta",
        "Okta one-time verification",
        Some(3),
        &[step(
            "GET",
            &[],
            &[Guard::Open],
            Some((At::Header("x-okta-verification-challenge"), Shape::Line)),
            Reply::Json("verification"),
        )],
    ),
    flow(
        "dropbox",
        "Dropbox challenge",
        Some(10),
        &[step("GET", &[], &[Guard::Open], Some((At::Query("challenge"), Shape::Line)), Reply::Text)],
    ),
    // Fetching the URL of an UnsubscribeConfirmation would subscribe again.
    flow(
        "aws-sns",
        "SNS SubscriptionConfirmation",
        Some(15),
        &[
            step(
                "POST",
                &[When::Is(At::Json("/Type"), "SubscriptionConfirmation")],
                &[Guard::Signed],
                Some((At::Json("/SubscribeURL"), Shape::Line)),
                Reply::Code(confirm::sns),
            ),
            step("POST", &[When::Is(At::Json("/Type"), "UnsubscribeConfirmation")], &[Guard::Signed], None, Reply::Empty(200)),
        ],
    )
    .needing(&["topic_arn"]),
    flow(
        "x-twitter",
        "X CRC",
        Some(10),
        &[step("GET", &[], &[Guard::Open], Some((At::Query("crc_token"), Shape::Token)), Reply::Code(hook::x_crc))],
    ),
    flow("cloudevents", "CloudEvents abuse protection", None, &[CLOUDEVENTS])
        .also(&["cloudevents-http"])
        .needing(&["allowed_origins", "allowed_rate"]),
    flow(
        "azure-event-grid",
        "Azure Event Grid SubscriptionValidation",
        Some(30),
        &[
            step(
                "POST",
                &[
                    When::Is(At::Header("aeg-event-type"), "SubscriptionValidation"),
                    When::Is(At::Json("/0/eventType"), "Microsoft.EventGrid.SubscriptionValidationEvent"),
                ],
                &[Guard::Open],
                Some((At::Json("/0/data/validationCode"), Shape::Line)),
                Reply::Json("validationResponse"),
            ),
            CLOUDEVENTS,
        ],
    )
    .needing(&["allowed_origins", "allowed_rate"]),
    // Events are of type 1 too; they have a member for what happened.
    flow(
        "discord",
        "Discord PING",
        Some(3),
        &[
            step(
                "POST",
                &[When::JsonInteger("/type", 1), When::JsonLacks("event")],
                &[Guard::Signed],
                None,
                Reply::Fixed(r#"{"type":1}"#),
            ),
            step("POST", &[When::JsonInteger("/type", 0)], &[Guard::Signed], None, Reply::EmptyJson(204)),
        ],
    )
    .also(&["discord-webhook-events"]),
    flow(
        "twitch",
        "Twitch webhook_callback_verification",
        Some(10),
        &[step(
            "POST",
            &[When::Is(At::Header("Twitch-Eventsub-Message-Type"), "webhook_callback_verification")],
            &[Guard::Signed],
            Some((At::Json("/challenge"), Shape::Line)),
            Reply::Text,
        )],
    ),
    flow(
        "xero",
        "Xero intent to receive",
        Some(5),
        &[step("POST", &[When::JsonEmptyArray("/events")], &[Guard::Signed], None, Reply::Empty(200))],
    )
    .also(&["xero-ok", "xero-bad"]),
    // A hub that says no only informs.
    flow(
        "websub",
        "WebSub verification of intent",
        None,
        &[
            step("GET", &[], &[Guard::Open], Some((At::Query("hub.challenge"), Shape::Line)), Reply::Code(hook::websub)),
            step("GET", &[When::Is(At::Query("hub.mode"), "denied")], &[Guard::Open], None, Reply::Empty(200)),
        ],
    )
    .needing(&["topic", "mode"]),
    flow("mailchimp", "Mailchimp GET validation", None, &[step("GET", &[], &[Guard::Open], None, Reply::Empty(200))]),
    // The test is signed with a key that everybody knows; it holds no events, so that nothing depends on who sent it.
    flow(
        "mandrill",
        "Mandrill HEAD + test POST",
        None,
        &[
            step("HEAD", &[], &[Guard::Open], None, Reply::Empty(200)),
            step("POST", &[When::Is(At::Form("mandrill_events"), "[]")], &[Guard::Open], None, Reply::Empty(200)),
        ],
    ),
    flow(
        "notion",
        "Notion verification_token",
        None,
        &[step(
            "POST",
            &[When::JsonMembers(&["verification_token"])],
            &[Guard::Open],
            Some((At::Json("/verification_token"), Shape::HeaderValue)),
            Reply::Settle { header: None, name: "verification_token", is_for_operator: true },
        )],
    ),
    flow(
        "monday",
        "monday.com challenge",
        None,
        &[step(
            "POST",
            &[When::JsonLacks("event")],
            &[Guard::Open],
            Some((At::Json("/challenge"), Shape::Line)),
            Reply::Json("challenge"),
        )],
    ),
    flow(
        "ebay",
        "eBay challenge_code",
        None,
        &[step("GET", &[], &[Guard::Open], Some((At::Query("challenge_code"), Shape::Token)), Reply::Code(hook::ebay))],
    )
    .needing(&["verification_token", "endpoint_url"]),
    flow(
        "linkedin",
        "LinkedIn challengeCode",
        Some(3),
        &[step("GET", &[], &[Guard::Open], Some((At::Query("challengeCode"), Shape::Token)), Reply::Code(hook::linkedin))],
    ),
    flow(
        "braintree",
        "Braintree bt_challenge",
        None,
        &[step("GET", &[], &[Guard::Open], Some((At::Query("bt_challenge"), Shape::Hex(20, 32))), Reply::Code(hook::braintree))],
    )
    .needing(&["public_key"]),
    flow(
        "strava",
        "Strava hub.challenge JSON",
        Some(2),
        &[step(
            "GET",
            &[],
            &[
                Guard::Mode(At::Query("hub.mode"), "subscribe", 403),
                Guard::Agreed(At::Query("hub.verify_token"), "verify_token", 403),
            ],
            Some((At::Query("hub.challenge"), Shape::Line)),
            Reply::Json("hub.challenge"),
        )],
    )
    .needing(&["verify_token"]),
    flow(
        "nylas",
        "Nylas challenge",
        Some(10),
        &[step("GET", &[], &[Guard::Open], Some((At::Query("challenge"), Shape::Line)), Reply::Text)],
    ),
    flow(
        "onfleet",
        "Onfleet check",
        None,
        &[step("GET", &[], &[Guard::Open], Some((At::Query("check"), Shape::Line)), Reply::Text)],
    ),
    flow(
        "oura",
        "Oura verification",
        None,
        &[step(
            "GET",
            &[],
            &[Guard::Agreed(At::Query("verification_token"), "verification_token", 403)],
            Some((At::Query("challenge"), Shape::Line)),
            Reply::Json("challenge"),
        )],
    )
    .needing(&["verification_token"]),
    flow(
        "ringcentral",
        "RingCentral Validation-Token",
        Some(3),
        &[step(
            "POST",
            &[],
            &[Guard::Open],
            Some((At::Header("Validation-Token"), Shape::HeaderValue)),
            Reply::Header("Validation-Token"),
        )],
    ),
    flow(
        "front",
        "Front X-Front-Challenge",
        Some(10),
        &[step("POST", &[], &[Guard::Signed], Some((At::Header("X-Front-Challenge"), Shape::Line)), Reply::Text)],
    ),
    flow(
        "smartcar",
        "Smartcar VERIFY",
        Some(15),
        &[step(
            "POST",
            &[When::Is(At::Json("/eventType"), "VERIFY")],
            &[Guard::Signed],
            Some((At::Json("/data/challenge"), Shape::Token)),
            Reply::Code(hook::smartcar),
        )],
    ),
    flow(
        "tebex",
        "Tebex validation.webhook",
        None,
        &[step(
            "POST",
            &[When::Is(At::Json("/type"), "validation.webhook")],
            &[Guard::Signed],
            Some((At::Json("/id"), Shape::Line)),
            Reply::Json("id"),
        )],
    ),
    flow(
        "adobe-io-events",
        "Adobe I/O Events challenge",
        None,
        &[step("GET", &[], &[Guard::Open], Some((At::Query("challenge"), Shape::Line)), Reply::Text)],
    ),
    // It sends the client id of the application that made the webhook, and wants it back: from the verification and from every event.
    flow(
        "adobe-sign",
        "Adobe Acrobat Sign verification of intent",
        Some(5),
        &[step(
            "GET",
            &[],
            &[Guard::SecretIn(At::Header("X-AdobeSign-ClientId"))],
            Some((At::Header("X-AdobeSign-ClientId"), Shape::HeaderValue)),
            Reply::Header("X-AdobeSign-ClientId"),
        )],
    )
    .acknowledged(Acknowledgement::SecretIn("X-AdobeSign-ClientId")),
    flow(
        "vercel-drains",
        "Vercel log drain verify",
        None,
        &[
            step("POST", &[When::JsonEmptyArray("")], &[Guard::Open], None, Reply::Code(hook::vercel)),
            step("GET", &[], &[Guard::Open], None, Reply::Code(hook::vercel)),
            step("HEAD", &[], &[Guard::Open], None, Reply::Code(hook::vercel)),
        ],
    )
    .also(&["vercel"])
    .needing(&["verify_header"])
    .acknowledged(Acknowledgement::HeaderOf("x-vercel-verify", "verify_header")),
    flow("dropbox-sign", "Dropbox Sign ack", Some(30), &[])
        .acknowledged(Acknowledgement::Words("text/plain", "Hello API Event Received")),
    flow("adyen", "Adyen ack", Some(10), &[]).acknowledged(Acknowledgement::Words("text/plain", "[accepted]")),
    flow("salesforce", "Salesforce outbound message ack", Some(60), &[])
        .acknowledged(Acknowledgement::Words("text/xml; charset=utf-8", SALESFORCE)),
    flow("wechat-pay", "WeChat Pay ack", Some(5), &[])
        .acknowledged(Acknowledgement::Words("application/json", r#"{"code":"SUCCESS","message":"OK"}"#)),
    // No handshake; the secret with which every account signs its tests is never taken.
    flow("zendesk", "Zendesk (none)", Some(12), &[]),
    flow("box", "Box (none)", Some(30), &[]),
    flow(
        "ifttt",
        "IFTTT service status",
        None,
        &[
            step(
                "GET",
                &[When::PathEnd("/ifttt/v1/status")],
                &[Guard::SecretIn(At::Header("IFTTT-Service-Key"))],
                None,
                Reply::Empty(200),
            ),
            step(
                "POST",
                &[When::PathEnd("/ifttt/v1/test/setup")],
                &[Guard::SecretIn(At::Header("IFTTT-Service-Key"))],
                None,
                Reply::Fixed(r#"{"data":{"samples":{}}}"#),
            ),
        ],
    ),
    // The ping is signed by some versions only, and nothing depends on it.
    flow(
        "woocommerce",
        "WooCommerce activation ping",
        Some(5),
        &[step("POST", &[When::FormOnly("webhook_id")], &[Guard::SignedIf("X-WC-Webhook-Signature")], None, Reply::Empty(200))],
    ),
    flow(
        "exact-online",
        "Exact Online empty POST",
        None,
        &[step("POST", &[When::EmptyBody], &[Guard::Open], None, Reply::Empty(200))],
    ),
    flow("moralis", "Moralis empty POST", None, &[step("POST", &[When::EmptyBody], &[Guard::Open], None, Reply::Empty(200))]),
    flow(
        "line",
        "LINE verify button",
        None,
        &[step("POST", &[When::JsonEmptyArray("/events")], &[Guard::Signed], None, Reply::Empty(200))],
    ),
    flow(
        "viber",
        "Viber set_webhook",
        None,
        &[step("POST", &[When::Is(At::Json("/event"), "webhook")], &[Guard::Signed], None, Reply::Empty(200))],
    ),
];
