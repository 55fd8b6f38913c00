//! Jobs: submitted, moved and deleted. A job's folder, `jobs/<id>`, is whole before its record is
//! written, and goes after the record is gone; what a crash leaves between is swept at the start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Registry, Result, unix_ms};
use crate::blobs::{entries, sync_dir};
use crate::policy::plain_author;
use crate::record::UNKNOWN_AUTHOR;
use crate::{FunctionName, JobId, JobMove, JobRecord, NewJob, RegistryError, VersionNumber};

impl Registry {
    /// Takes a job in. `folder`, below [`staging`](Self::staging), becomes the job's; its files are
    /// put on the disk first, and the job is when this returns.
    ///
    /// # Errors
    /// [`RegistryError::VersionNotFound`] where its version was deleted meanwhile.
    pub fn submit_job(&self, new: NewJob, folder: &Path) -> Result<JobRecord> {
        let of = |e| RegistryError::io(folder, e);
        for file in entries(folder)? {
            File::open(&file).and_then(|f| f.sync_all()).map_err(of)?;
        }
        sync_dir(folder)?;
        let author = match plain_author(&new.author) {
            author if author.is_empty() => UNKNOWN_AUTHOR.to_owned(),
            author => author,
        };
        let _changing = self.changing();
        self.version(&new.function, new.version)?;
        self.check_room()?;
        let job = JobRecord::queued(NewJob { author, ..new }, JobId::now(), unix_ms());
        let own = self.job_folder(job.id);
        fs::rename(folder, &own).map_err(of)?;
        let written = sync_dir(&self.jobs_folder()).and_then(|()| self.records.put_job(&job));
        if let Err(error) = written {
            // What can't be removed now is swept at the next start.
            let _ = fs::remove_dir_all(&own);
            return Err(error);
        }
        Ok(job)
    }

    /// The folder of a job's files.
    pub fn job_folder(&self, id: JobId) -> PathBuf {
        self.jobs_folder().join(id.to_string())
    }

    pub(super) fn jobs_folder(&self) -> PathBuf {
        self.dir.join("jobs")
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Result<JobRecord> {
        self.records
            .job(id)?
            .ok_or(RegistryError::JobNotFound { id })
    }

    /// All jobs, oldest first.
    pub fn jobs(&self) -> Result<Vec<JobRecord>> {
        self.records.jobs().collect()
    }

    /// Moves a job, and has it on the disk.
    ///
    /// # Errors
    /// [`RegistryError::JobConflict`] where it can't be moved so in its present state;
    /// [`RegistryError::VersionNotFound`] where a retry's version was deleted.
    pub fn move_job(&self, id: JobId, to: JobMove) -> Result<JobRecord> {
        let _changing = self.changing();
        let job = self.job(id)?;
        if to == JobMove::Retry {
            self.version(&job.function, job.version)?;
        }
        // An end needs no free disk beyond what is set aside.
        let ends = matches!(
            to,
            JobMove::Pause(_) | JobMove::Fail(_) | JobMove::Cancel(_)
        );
        let next = job
            .step(to, unix_ms())
            .map_err(|reason| RegistryError::JobConflict { id, reason })?;
        if !ends {
            self.check_room()?;
        }
        self.records.put_job(&next)?;
        Ok(next)
    }

    /// Deletes a job that has ended, with its files.
    ///
    /// # Errors
    /// [`RegistryError::JobConflict`] where it is open still.
    pub fn delete_job(&self, id: JobId) -> Result<()> {
        {
            let _changing = self.changing();
            let job = self.job(id)?;
            if job.state.is_open() {
                let reason = format!("is {} still: cancel it first", job.state.name());
                return Err(RegistryError::JobConflict { id, reason });
            }
            self.records.remove_job(id)?;
        }
        if let Err(error) = fs::remove_dir_all(self.job_folder(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(job = %id, %error, "files of a deleted job are left for the next start");
        }
        Ok(())
    }

    /// Refuses where an open job uses the version, or any of the function's. The caller holds the
    /// lock.
    pub(super) fn check_no_open_job(
        &self,
        function: &FunctionName,
        number: Option<VersionNumber>,
    ) -> Result<()> {
        for job in self.open_jobs(function) {
            let job = job?;
            if number.is_none_or(|number| number == job.version) {
                return Err(RegistryError::VersionHasJob {
                    function: function.clone(),
                    number: job.version,
                    id: job.id,
                    state: job.state,
                });
            }
        }
        Ok(())
    }

    /// The jobs of a function that have not ended.
    pub(super) fn open_jobs(
        &self,
        function: &FunctionName,
    ) -> impl Iterator<Item = Result<JobRecord>> {
        let open = move |job: &JobRecord| job.function == *function && job.state.is_open();
        let jobs = self.records.jobs();
        jobs.filter(move |job| job.as_ref().map_or(true, open))
    }

    /// Makes the folder of jobs, and removes from it what has no record.
    pub(super) fn sweep_jobs(&self) -> Result<usize> {
        let folder = self.jobs_folder();
        fs::create_dir_all(&folder).map_err(|e| RegistryError::io(&folder, e))?;
        let mut swept = 0;
        for left in entries(&folder)? {
            let name = left.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.parse::<JobId>().ok());
            if let Some(id) = id
                && self.records.has_job(id)?
            {
                continue;
            }
            let removed = match left.is_dir() {
                true => fs::remove_dir_all(&left),
                false => fs::remove_file(&left),
            };
            removed.map_err(|e| RegistryError::io(&left, e))?;
            swept += 1;
        }
        Ok(swept)
    }
}
