//! A push as GitHub sends it: compact JSON with the whole repository and the whole sender in it, some 7 KB for one commit.

use serde_json::{Map, Value, json};

const OWNER: (&str, u64) = ("example-org", 100_200_300);
const SENDER: (&str, u64) = ("ada-example", 21_031_067);
const REPOSITORY: &str = "bell";
/// Addresses of a user, behind the user's own.
const USER_URLS: &[(&str, &str)] = &[
    ("followers_url", "/followers"),
    ("following_url", "/following{/other_user}"),
    ("gists_url", "/gists{/gist_id}"),
    ("starred_url", "/starred{/owner}{/repo}"),
    ("subscriptions_url", "/subscriptions"),
    ("organizations_url", "/orgs"),
    ("repos_url", "/repos"),
    ("events_url", "/events{/privacy}"),
    ("received_events_url", "/received_events"),
];
/// Addresses of a repository, behind the repository's own.
const REPOSITORY_URLS: &[(&str, &str)] = &[
    ("forks_url", "/forks"),
    ("keys_url", "/keys{/key_id}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("teams_url", "/teams"),
    ("hooks_url", "/hooks"),
    ("issue_events_url", "/issues/events{/number}"),
    ("events_url", "/events"),
    ("assignees_url", "/assignees{/user}"),
    ("branches_url", "/branches{/branch}"),
    ("tags_url", "/tags"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("trees_url", "/git/trees{/sha}"),
    ("statuses_url", "/statuses/{sha}"),
    ("languages_url", "/languages"),
    ("stargazers_url", "/stargazers"),
    ("contributors_url", "/contributors"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("commits_url", "/commits{/sha}"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("comments_url", "/comments{/number}"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("contents_url", "/contents/{+path}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("merges_url", "/merges"),
    ("archive_url", "/{archive_format}{/ref}"),
    ("downloads_url", "/downloads"),
    ("issues_url", "/issues{/number}"),
    ("pulls_url", "/pulls{/number}"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("labels_url", "/labels{/name}"),
    ("releases_url", "/releases{/id}"),
    ("deployments_url", "/deployments"),
];

/// The body of a push of one commit to a branch.
pub fn body(commit: &str) -> String {
    let before = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
    let web = format!("https://github.com/{}/{REPOSITORY}", OWNER.0);
    let person = json!({ "name": "Ada Example", "email": "ada@example.com", "username": SENDER.0 });
    let head = json!({
        "id": commit, "tree_id": "b1b3f9723831141a31a1a7252a213e216ea76e56", "distinct": true,
        "message": "Ring twice when nobody answers\n\nThe first ring is often missed.", "timestamp": "2026-01-05T10:00:00+01:00",
        "url": format!("{web}/commit/{commit}"), "author": person, "committer": person,
        "added": ["src/ring/twice.rs"], "removed": [], "modified": ["src/ring.rs", "tests/ring.rs"],
    });
    let push = json!({
        "ref": "refs/heads/main", "before": before, "after": commit, "repository": repository(&web),
        "pusher": { "name": SENDER.0, "email": "ada@example.com" },
        "organization": organization(), "sender": user(SENDER.0, SENDER.1, "User"),
        "created": false, "deleted": false, "forced": false, "base_ref": null,
        "compare": format!("{web}/compare/{}...{}", &before[..12], &commit[..12]), "commits": [head], "head_commit": head,
    });
    push.to_string()
}

fn user(login: &str, id: u64, kind: &str) -> Value {
    let own = format!("https://api.github.com/users/{login}");
    let mut user = json!({
        "login": login, "id": id, "node_id": "MDQ6VXNlcjIxMDMxMDY3", "gravatar_id": "", "url": own, "type": kind, "site_admin": false,
        "avatar_url": format!("https://avatars.githubusercontent.com/u/{id}?v=4"), "html_url": format!("https://github.com/{login}"),
        "user_view_type": "public",
    });
    add_urls(&mut user, &own, USER_URLS);
    user
}

fn organization() -> Value {
    let own = format!("https://api.github.com/orgs/{}", OWNER.0);
    let mut organization = json!({
        "login": OWNER.0, "id": OWNER.1, "node_id": "MDEyOk9yZ2FuaXphdGlvbjE=", "url": own, "description": "Bells of all kinds",
        "avatar_url": format!("https://avatars.githubusercontent.com/u/{}?v=4", OWNER.1),
    });
    let urls = [
        ("repos_url", "/repos"),
        ("events_url", "/events"),
        ("hooks_url", "/hooks"),
        ("issues_url", "/issues"),
        ("members_url", "/members{/member}"),
        ("public_members_url", "/public_members{/member}"),
    ];
    add_urls(&mut organization, &own, &urls);
    organization
}

fn repository(web: &str) -> Value {
    let mut owner = user(OWNER.0, OWNER.1, "Organization");
    let full_name = format!("{}/{REPOSITORY}", OWNER.0);
    put(&mut owner, "name", OWNER.0);
    put(&mut owner, "email", "bells@example.com");
    let mut repository = json!({
        "id": 186_853_002, "node_id": "MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=", "name": REPOSITORY, "full_name": full_name, "private": false,
        "owner": owner, "html_url": web, "description": "A bell that rings", "fork": false, "url": web, "created_at": 1_557_933_565,
        "updated_at": "2026-01-04T15:20:41Z", "pushed_at": 1_767_603_600, "homepage": "", "size": 1_204, "stargazers_count": 12,
        "watchers_count": 12, "language": "Rust", "has_issues": true, "has_projects": true, "has_downloads": true, "has_wiki": true,
        "has_pages": false, "has_discussions": false, "forks_count": 1, "mirror_url": null, "archived": false, "disabled": false,
        "open_issues_count": 2, "allow_forking": true, "is_template": false, "web_commit_signoff_required": false,
        "topics": ["bell", "webhooks"], "visibility": "public", "forks": 1, "open_issues": 2, "watchers": 12,
    });
    let licence = json!({
        "key": "mit", "name": "MIT License", "spdx_id": "MIT", "url": "https://api.github.com/licenses/mit", "node_id": "MDc6TGljZW5zZTEz",
    });
    let more = [("default_branch", "main"), ("master_branch", "main"), ("organization", OWNER.0)];
    more.iter().for_each(|(name, value)| put(&mut repository, name, *value));
    put(&mut repository, "license", licence);
    put(&mut repository, "stargazers", 12);
    put(&mut repository, "custom_properties", json!({}));
    put(&mut repository, "git_url", format!("git://github.com/{full_name}.git"));
    put(&mut repository, "ssh_url", format!("git@github.com:{full_name}.git"));
    put(&mut repository, "clone_url", format!("{web}.git"));
    put(&mut repository, "svn_url", web);
    add_urls(&mut repository, &format!("https://api.github.com/repos/{full_name}"), REPOSITORY_URLS);
    repository
}

fn put(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value.into());
    }
}

fn add_urls(object: &mut Value, own: &str, urls: &[(&str, &str)]) {
    let urls: Map<String, Value> = urls.iter().map(|(name, rest)| ((*name).to_owned(), format!("{own}{rest}").into())).collect();
    if let Some(members) = object.as_object_mut() {
        members.extend(urls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: the bench measures an abridged event, and calls it a real one.
    #[test]
    fn a_push_is_as_large_as_those_of_github() {
        let body = body(&"b".repeat(40));
        assert!((6_500..9_000).contains(&body.len()), "{}", body.len());
        assert!(serde_json::from_str::<Value>(&body).is_ok_and(|push| push["head_commit"]["id"] == "b".repeat(40)));
    }
}
