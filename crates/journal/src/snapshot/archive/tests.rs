//! Snapshots as they are written, found, refused and removed.

use std::sync::Arc;

use bytes::Bytes;
use store::bucket::{Bucket, Op};
use store::buckets::{Buckets, Member, Standing};
use store::faulty::{Fault, FaultRule, Faulty};
use store::memory::Memory;

use super::{Archive, Read, Unreadable};
use crate::entry::{EntryId, Stamp};
use crate::snapshot::Cut;
use crate::snapshot::manifest::{Chunk, Manifest, Seal, Stored};

fn position(index: u64, claim: u64) -> Cut {
    Cut {
        shard: 0,
        last: EntryId { index, nonce: 1 },
        claim: EntryId {
            index: claim,
            nonce: 2,
        },
        claimant: "c1".to_owned(),
        stamp: Stamp::default(),
        trimmed_below: 1,
        spared: vec![claim],
        bodies: Vec::new(),
        quarantined: Vec::new(),
    }
}

fn chunks(texts: &[&str]) -> Vec<Bytes> {
    let bytes = |text: &&str| Bytes::copy_from_slice(text.as_bytes());
    texts.iter().map(bytes).collect()
}

fn manifest(cut: Cut, chunks: Vec<Stored>) -> Manifest {
    Manifest {
        cut,
        seal: Seal::default(),
        mark: Bytes::new(),
        chunks,
    }
}

impl Archive {
    async fn put(&self, cut: Cut, chunks: Vec<Bytes>) -> Result<(), store::bucket::Error> {
        let parts = chunks
            .into_iter()
            .map(|bytes| (Chunk::of(&bytes), Some(bytes)));
        let claim = cut.claim.index;
        self.write(claim, parts.collect(), |chunks| manifest(cut, chunks))
            .await
    }
}

fn archive() -> (Arc<Faulty>, Archive) {
    let bucket = Arc::new(Faulty::new(Arc::new(Memory::new()), 1));
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    (bucket, Archive::new(shared))
}

#[tokio::test]
async fn a_snapshot_comes_back_as_it_was_written() {
    let (_, archive) = archive();
    let written = archive.put(position(9, 3), chunks(&["a", "b"])).await;
    written.expect("written");
    let found = archive.list(0).await.expect("a listing");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].index, 9);
    let read = archive.read(&found[0]).await.expect("an answer");
    let Read::Whole(manifest, pieces) = read else {
        panic!("{read:?}");
    };
    assert_eq!(pieces, chunks(&["a", "b"]));
    assert_eq!(manifest.cut, position(9, 3));
    assert_eq!(archive.list(9).await, Ok(Vec::new()));
}

#[tokio::test]
async fn objects_have_the_names_of_the_worked_example() {
    let page = include_str!("../../../../../docs/formats/journal-snapshot.md");
    let object = crate::page::dump(page, "hex");
    let manifest = Manifest::decode(&object).expect("the manifest of the page");
    for key in [
        super::manifest_key(manifest.cut.last.index, &object),
        super::chunk_key(3, &manifest.chunks[0]),
    ] {
        assert!(page.contains(&format!("`{key}`")), "{key}");
    }
}

#[tokio::test]
async fn unchanged_chunks_are_written_once() {
    let (bucket, archive) = archive();
    let first = archive.put(position(9, 3), chunks(&["same", "old"])).await;
    first.expect("written");
    let puts = bucket.faults().calls(Op::PutNew);
    let second = archive.put(position(19, 3), chunks(&["same", "new"])).await;
    second.expect("written");
    let puts = bucket.faults().calls(Op::PutNew) - puts;
    assert_eq!(puts, 2, "one chunk and the manifest");
}

#[tokio::test]
async fn what_does_not_read_back_is_not_named() {
    let (bucket, archive) = archive();
    bucket.faults().add(FaultRule {
        prefix: "chunks/".to_owned(),
        ..FaultRule::on(Op::Get, Fault::Corrupt)
    });
    assert!(archive.put(position(9, 3), chunks(&["a"])).await.is_err());
    bucket.faults().clear();
    assert_eq!(archive.list(0).await, Ok(Vec::new()));
}

#[tokio::test]
async fn what_a_failed_attempt_left_is_not_taken_for_verified() {
    let (bucket, archive) = archive();
    bucket.faults().add(FaultRule {
        prefix: "chunks/".to_owned(),
        ..FaultRule::on(Op::Get, Fault::Corrupt)
    });
    for index in [9, 19] {
        let written = archive.put(position(index, 3), chunks(&["a"])).await;
        assert!(written.is_err(), "the chunk of slot {index} is damaged");
    }
    assert_eq!(archive.list(0).await, Ok(Vec::new()));
    bucket.faults().clear();
    let written = archive.put(position(29, 3), chunks(&["a"])).await;
    written.expect("now it reads back");
}

#[tokio::test]
async fn damage_is_told_from_a_bucket_that_does_not_answer() {
    let (bucket, archive) = archive();
    let written = archive.put(position(9, 3), chunks(&["a"])).await;
    written.expect("written");
    let found = archive.list(0).await.expect("a listing").remove(0);
    bucket.faults().add(FaultRule::on(Op::Get, Fault::Definite));
    assert!(archive.read(&found).await.is_err());
    bucket.faults().clear();
    let chunk = bucket
        .list("chunks/", None, 1)
        .await
        .expect("a listing")
        .remove(0);
    bucket.delete(&chunk.key).await.expect("deleted");
    let read = archive.read(&found).await.expect("an answer");
    assert!(
        matches!(&read, Read::Unusable(Unreadable::Damaged(why)) if why.contains("is missing")),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_sweep_leaves_what_others_name_or_may_be_naming() {
    let (bucket, archive) = archive();
    for (index, claim, texts) in [
        (9, 3, ["a", "old"]),
        (19, 3, ["a", "b"]),
        (29, 3, ["a", "c"]),
    ] {
        let written = archive.put(position(index, claim), chunks(&texts)).await;
        written.expect("written");
    }
    // A later leader has written a chunk and not named it yet.
    let later = Stored {
        chunk: Chunk::of(b"later"),
        nonce: 1,
    };
    let later = super::chunk_key(30, &later);
    let put = bucket
        .put_new(&later, Bytes::from_static(b"later").into())
        .await;
    put.expect("put");
    archive.sweep(19, 3).await.expect("swept");
    let left = archive.list(0).await.expect("a listing");
    assert_eq!(left.iter().map(|f| f.index).collect::<Vec<_>>(), [29, 19]);
    for found in &left {
        let read = archive.read(found).await.expect("an answer");
        assert!(matches!(read, Read::Whole(..)), "{read:?}");
    }
    let listed = bucket.list("chunks/", None, 10).await.expect("a listing");
    assert_eq!(listed.len(), 4, "a, b, c and the later one");
}

#[tokio::test]
async fn a_deletion_that_takes_effect_late_hits_no_chunk_that_was_written_again() {
    let (bucket, archive) = archive();
    for (index, texts) in [(9, ["a", "old"]), (19, ["a", "b"]), (29, ["a", "c"])] {
        let written = archive.put(position(index, 3), chunks(&texts)).await;
        written.expect("written");
    }
    let keys = |bucket: Arc<Faulty>| async move {
        let listed = bucket.list("chunks/", None, 10).await.expect("a listing");
        listed
            .into_iter()
            .map(|object| object.key)
            .collect::<Vec<_>>()
    };
    let before = keys(Arc::clone(&bucket)).await;
    archive.sweep(19, 3).await.expect("swept");
    let after = keys(Arc::clone(&bucket)).await;
    // The state has a part again that it had once.
    let written = archive.put(position(39, 3), chunks(&["a", "old"])).await;
    written.expect("written");
    for key in before.iter().filter(|key| !after.contains(key)) {
        bucket.delete(key).await.expect("deleted once more");
    }
    for found in archive.list(0).await.expect("a listing") {
        let read = archive.read(&found).await.expect("an answer");
        assert!(matches!(read, Read::Whole(..)), "{read:?}");
    }
}

#[tokio::test]
async fn a_part_that_one_of_three_buckets_holds_damaged_or_not_at_all_is_read_from_another() {
    for fault in [Fault::Corrupt, Fault::Missing] {
        for hurt in 0..3 {
            let faulty: Vec<_> = (0..3)
                .map(|seed| Arc::new(Faulty::new(Arc::new(Memory::new()), seed)))
                .collect();
            let member = |(number, bucket): (u32, &Arc<Faulty>)| Member {
                number,
                name: number.to_string(),
                bucket: Arc::<Faulty>::clone(bucket),
                counters: Arc::default(),
            };
            let members = (0..).zip(&faulty).map(member).collect();
            let buckets = Buckets::new(members, 2).expect("three");
            for number in 0..3 {
                buckets.looked(number, host::clock::now(), Standing::Proven);
            }
            let archive = Archive::new(Arc::new(buckets));
            let parts = chunks(&["one", "two"]);
            archive.put(position(7, 3), parts.clone()).await.unwrap();
            // All copies have come.
            while faulty[hurt].list("", None, 9).await.unwrap().len() < 3 {
                host::clock::sleep(std::time::Duration::from_millis(1)).await;
            }
            faulty[hurt].faults().add(FaultRule::on(Op::Get, fault));
            let found = archive.list(0).await.unwrap();
            let read = archive.read(&found[0]).await.unwrap();
            assert!(
                matches!(&read, Read::Whole(_, read) if *read == parts),
                "{fault:?} of {hurt}: {read:?}"
            );
        }
    }
}
