//! What the registry promises of jobs.

use super::*;
use crate::{JobId, JobMove, JobProgress, JobProtocol, JobRecord, JobState, NewJob};

fn submit(registry: &Registry, of: u32) -> Result<JobRecord> {
    let folder = tempfile::tempdir_in(registry.staging()).unwrap();
    fs::write(folder.path().join("items"), "an item").unwrap();
    let new = NewJob {
        function: name(),
        version: number(of),
        protocol: JobProtocol::Invoke,
        parameters: vec![("top".into(), "1".into())],
        items: 1,
        input_bytes: 7,
        max_attempts: 2,
        author: "ann".into(),
    };
    registry.submit_job(new, folder.path())
}

fn finished(registry: &Registry, id: JobId, failed: u64) -> JobRecord {
    let progress = JobProgress {
        succeeded: 1 - failed,
        failed,
        ..JobProgress::default()
    };
    registry.move_job(id, JobMove::Finish(progress)).unwrap()
}

#[test]
fn a_job_is_there_after_a_restart_with_its_files() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    let job = submit(&registry, 1).unwrap();
    registry.move_job(job.id, JobMove::Run).unwrap();
    drop(registry);
    fs::create_dir(dir.path().join("jobs/of-nobody")).unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let found = registry.job(job.id).unwrap();
    assert_eq!(
        (found.state, found.author.as_str()),
        (JobState::Running, "ann")
    );
    assert_eq!(registry.jobs().unwrap(), [found]);
    let items = fs::read(registry.job_folder(job.id).join("items")).unwrap();
    assert_eq!(items, b"an item");
    assert!(!dir.path().join("jobs/of-nobody").exists());
}

#[test]
fn a_version_with_an_open_job_stays() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    let job = submit(&registry, 2).unwrap();
    for refused in [
        registry.delete_version(&name(), number(2)),
        registry.delete_function(&name()),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, RegistryError::VersionHasJob { id, .. } if id == job.id));
        assert!(error.to_string().contains("version 2"), "{error}");
    }
    commit(&registry, "three");
    let keep_last = NonZeroU32::new(1);
    assert_eq!(registry.set_retention(&name(), keep_last).unwrap(), []);
    finished(&registry, job.id, 1);
    registry.delete_version(&name(), number(2)).unwrap();
    // Nobody could answer it.
    let retried = registry.move_job(job.id, JobMove::Retry);
    assert!(matches!(
        retried,
        Err(RegistryError::VersionNotFound { .. })
    ));
    assert!(matches!(
        submit(&registry, 2),
        Err(RegistryError::VersionNotFound { .. })
    ));
}

#[test]
fn a_job_is_deleted_with_its_files_when_it_has_ended() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    let job = submit(&registry, 1).unwrap();
    let refusal = registry.delete_job(job.id).unwrap_err().to_string();
    assert!(
        refusal.contains("is queued still: cancel it first"),
        "{refusal}"
    );
    finished(&registry, job.id, 0);
    registry.delete_job(job.id).unwrap();
    assert!(!registry.job_folder(job.id).exists());
    assert!(matches!(
        registry.job(job.id),
        Err(RegistryError::JobNotFound { .. })
    ));
}
