//! Which system calls a job may make: those that programs need, without those that reach past a container.
//!
//! What is not on the list fails with `EPERM`. New namespaces are refused by the flags of `clone`; `clone3`, whose flags
//! a filter cannot see, fails with `ENOSYS`, upon which C libraries take `clone`. Sockets are those of IP and Unix.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// `CLONE_NEW*`: all flags by which a process gets a namespace of its own.
const NEW_NAMESPACES: u64 = 0x7e02_0080;
/// Families of sockets: Unix, IPv4, IPv6.
const FAMILIES: [u64; 3] = [1, 2, 10];

/// The filters, in the order in which they are to be put on.
///
/// # Errors
/// What the compiler says; it does not for the lists here.
pub fn filters() -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let unconditional = ALLOWED.iter().map(|&call| (call, Vec::new()));
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = unconditional.collect();
    let no_namespaces = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0)?;
    allowed.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespaces])?]);
    let family = |family| {
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
        SeccompRule::new(vec![condition])
    };
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        allowed.insert(call, FAMILIES.into_iter().map(family).collect::<Result<_, _>>()?);
    }
    let errno = |number: libc::c_int| SeccompAction::Errno(u32::try_from(number).unwrap_or(1));
    let refuse = SeccompFilter::new(allowed, errno(libc::EPERM), SeccompAction::Allow, TargetArch::x86_64)?;
    let missing: BTreeMap<i64, Vec<SeccompRule>> = [(libc::SYS_clone3, Vec::new())].into();
    let miss = SeccompFilter::new(missing, SeccompAction::Allow, errno(libc::ENOSYS), TargetArch::x86_64)?;
    Ok(vec![refuse.try_into()?, miss.try_into()?])
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// What may be called with any arguments.
const ALLOWED: &[i64] = calls![
    // Files.
    SYS_read SYS_write SYS_open SYS_openat SYS_openat2 SYS_creat SYS_close SYS_close_range SYS_stat SYS_fstat SYS_lstat
    SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_lseek SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_preadv
    SYS_pwritev SYS_preadv2 SYS_pwritev2 SYS_access SYS_faccessat SYS_faccessat2 SYS_dup SYS_dup2 SYS_dup3 SYS_pipe
    SYS_pipe2 SYS_sendfile SYS_splice SYS_tee SYS_vmsplice SYS_copy_file_range SYS_fcntl SYS_flock SYS_fsync
    SYS_fdatasync SYS_sync SYS_syncfs SYS_sync_file_range SYS_truncate SYS_ftruncate SYS_fallocate SYS_fadvise64
    SYS_readahead SYS_getdents SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_rename SYS_renameat SYS_renameat2
    SYS_mkdir SYS_mkdirat SYS_rmdir SYS_link SYS_linkat SYS_unlink SYS_unlinkat SYS_symlink SYS_symlinkat SYS_readlink
    SYS_readlinkat SYS_chmod SYS_fchmod SYS_fchmodat SYS_chown SYS_fchown SYS_lchown SYS_fchownat SYS_umask SYS_utime
    SYS_utimes SYS_utimensat SYS_futimesat SYS_mknod SYS_mknodat SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_setxattr
    SYS_lsetxattr SYS_fsetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr
    SYS_fremovexattr SYS_inotify_init SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch SYS_ioctl
    SYS_memfd_create
    // Memory.
    SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_madvise SYS_msync SYS_mincore SYS_brk SYS_mlock SYS_mlock2
    SYS_munlock SYS_mlockall SYS_munlockall SYS_membarrier SYS_get_mempolicy SYS_set_mempolicy SYS_mbind
    SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl
    // Processes and threads.
    SYS_fork SYS_vfork SYS_clone3 SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill
    SYS_tgkill SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_getpgrp SYS_setpgid SYS_getsid SYS_setsid SYS_getuid
    SYS_geteuid SYS_getgid SYS_getegid SYS_getgroups SYS_getresuid SYS_getresgid SYS_setuid SYS_setgid SYS_setreuid
    SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid SYS_setfsgid SYS_capget SYS_capset SYS_prctl
    SYS_arch_prctl SYS_set_tid_address SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_sched_yield
    SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam SYS_sched_setparam SYS_sched_getscheduler
    SYS_sched_setscheduler SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_rr_get_interval
    SYS_sched_getattr SYS_sched_setattr SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_getrlimit
    SYS_setrlimit SYS_prlimit64 SYS_getrusage SYS_times SYS_getcpu SYS_pidfd_open SYS_pidfd_send_signal SYS_seccomp
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
    // Signals, waiting and time.
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigpending SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_signalfd SYS_signalfd4 SYS_restart_syscall SYS_pause
    SYS_alarm SYS_futex SYS_futex_waitv SYS_poll SYS_ppoll SYS_select SYS_pselect6 SYS_epoll_create SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_wait SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd SYS_eventfd2 SYS_nanosleep
    SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_time SYS_getitimer SYS_setitimer
    SYS_timer_create SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete SYS_timerfd_create
    SYS_timerfd_settime SYS_timerfd_gettime
    // Asynchronous input and output of the older kind; the newer one passes filters by.
    SYS_io_setup SYS_io_destroy SYS_io_submit SYS_io_cancel SYS_io_getevents
    // Between processes.
    SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt
    SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown SYS_semget SYS_semop
    SYS_semctl SYS_semtimedop SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend
    SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr
    // The machine.
    SYS_uname SYS_sysinfo SYS_getrandom
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_compile() {
        let filters = filters().unwrap();
        assert_eq!(filters.len(), 2);
        // The kernel takes 4096 instructions.
        assert!(filters.iter().all(|filter| filter.len() < 4096), "{}", filters[0].len());
    }

    #[test]
    fn what_reaches_past_a_container_is_not_on_the_list() {
        for call in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_open_tree,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_adjtimex,
            libc::SYS_open_by_handle_at,
            libc::SYS_name_to_handle_at,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_syslog,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_personality,
            libc::SYS_pidfd_getfd,
            libc::SYS_sethostname,
        ] {
            assert!(!ALLOWED.contains(&call), "{call}");
        }
    }
}
