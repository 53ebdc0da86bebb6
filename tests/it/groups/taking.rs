//! What is made, of which claims, and what is said of it.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_group_is_taken_as_one_and_its_older_ones_are_pruned_as_one() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(0);
        let new = cluster.new_group();
        assert_eq!(cluster.groups(), [name_of(&new)]);
        assert_eq!(new["spec"]["source"]["selector"], json!({"matchLabels": {LABEL: "shop"}}));
        assert_eq!(new["metadata"]["labels"]["job"], "volume-snapshotter");
        assert_eq!(new["metadata"]["labels"]["volume-snapshotter/group"], "shop");
        let members = cluster.members(name_of(&new));
        let line = |claim: &str| {
            format!(
                "\n{claim}: {}, member of {} of group shop, ready after",
                name_of(&members[claim]),
                name_of(&new)
            )
        };
        assert!(ran.message.starts_with("2 of 2 claims have a new ready snapshot\n"), "{}", ran.message);
        for claim in ["data", "logs"] {
            assert!(ran.message.contains(&line(claim)), "{}", ran.message);
        }
        assert_eq!(ran.message.matches("1 older snapshot deleted, 0 kept").count(), 2, "{}", ran.message);
        let deleted = ran.lines("deleted the older snapshot");
        assert_eq!(deleted.len(), 1);
        assert_eq!((&deleted[0]["group"], &deleted[0]["snapshot"]), (&json!("shop"), &json!("old")));
    })
    .await;
}
