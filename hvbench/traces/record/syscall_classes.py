"""System calls by class: what the metadata of a recording counts.

Names and numbers are those of x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl`, Linux 6.10); the classes are a choice
of this project. `io` reads and writes whatever a descriptor stands for, sockets included where a program uses read and
write for them. What is in none of the classes is `other`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_FIRST: Final = (
    "read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask "
    "rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise "
    "shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept "
    "sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt "
    "clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl "
    "flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink "
    "symlink readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace "
    "getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups "
    "setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset rt_sigpending "
    "rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod uselib personality ustat statfs fstatfs "
    "sysfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler "
    "sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup "
    "modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 "
    "swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module "
    "get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead "
    "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr "
    "lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup "
    "io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old "
    "epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create "
    "timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres "
    "clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes vserver mbind set_mempolicy get_mempolicy "
    "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr kexec_load waitid add_key request_key "
    "keyctl ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat "
    "mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat "
    "pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range vmsplice move_pages "
    "utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 "
    "signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open "
    "recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs "
    "sendmmsg setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr "
    "renameat2 seccomp getrandom memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 "
    "copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq "
)
_LATER: Final = (
    "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount "
    "fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr "
    "quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease "
    "futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue "
    "statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal "
)
_BASE: Final = 424
"""Numbers from 335 to 423 are of no call of this architecture."""
CALLS: Final[dict[int, str]] = dict(enumerate(_FIRST.split())) | dict(enumerate(_LATER.split(), _BASE))

CLASSES: Final[dict[str, str]] = {
    "io": (
        "read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek sendfile copy_file_range "
        "splice tee vmsplice fsync fdatasync sync syncfs sync_file_range fallocate truncate ftruncate readahead "
        "fadvise64 io_setup io_destroy io_getevents io_pgetevents io_submit io_cancel io_uring_setup "
        "io_uring_enter io_uring_register ioctl "
    ),
    "files": (
        "open openat openat2 creat close close_range stat fstat lstat newfstatat statx access faccessat "
        "faccessat2 getdents getdents64 getcwd chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir link "
        "linkat unlink unlinkat symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown "
        "fchown lchown fchownat umask utime utimes utimensat futimesat mknod mknodat statfs fstatfs ustat "
        "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr "
        "lremovexattr fremovexattr dup dup2 dup3 fcntl flock inotify_init inotify_init1 inotify_add_watch "
        "inotify_rm_watch fanotify_init fanotify_mark name_to_handle_at open_by_handle_at mount umount2 chroot "
        "pivot_root cachestat "
    ),
    "network": (
        "socket socketpair connect accept accept4 bind listen shutdown sendto recvfrom sendmsg recvmsg sendmmsg "
        "recvmmsg getsockname getpeername setsockopt getsockopt "
    ),
    "memory": (
        "mmap munmap mremap mprotect brk madvise process_madvise mincore msync mlock mlock2 mlockall munlock "
        "munlockall remap_file_pages mbind set_mempolicy get_mempolicy migrate_pages move_pages memfd_create "
        "memfd_secret userfaultfd membarrier pkey_mprotect pkey_alloc pkey_free mseal process_vm_readv "
        "process_vm_writev map_shadow_stack "
    ),
    "processes": (
        "clone clone3 fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill getpid getppid "
        "gettid set_tid_address prctl arch_prctl setpgid getpgid getpgrp setsid getsid getpriority setpriority "
        "sched_yield sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_setattr "
        "sched_getattr sched_setaffinity sched_getaffinity sched_get_priority_max sched_get_priority_min "
        "sched_rr_get_interval getrlimit setrlimit prlimit64 getrusage unshare setns ptrace seccomp rseq "
        "pidfd_open pidfd_getfd pidfd_send_signal set_robust_list get_robust_list getcpu "
    ),
    "waits": (
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 "
        "futex futex_waitv futex_wake futex_wait futex_requeue pause eventfd eventfd2 signalfd signalfd4 "
    ),
    "time": (
        "nanosleep clock_nanosleep gettimeofday settimeofday time times clock_gettime clock_settime clock_getres "
        "clock_adjtime adjtimex getitimer setitimer alarm timer_create timer_settime timer_gettime "
        "timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime "
    ),
    "ipc": (
        "pipe pipe2 shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open "
        "mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr "
    ),
    "signals": (
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend "
        "rt_tgsigqueueinfo sigaltstack restart_syscall "
    ),
}
OTHER: Final = "other"
_CLASS_OF: Final = {call: name for name, calls in CLASSES.items() for call in calls.split()}


def by_class(counts: Iterable[tuple[int | str, int]]) -> dict[str, int]:
    """Counts of calls, by number or by name, as counts of classes; classes without calls are left out."""
    total: dict[str, int] = {}
    for call, count in counts:
        name = CALLS.get(call, "") if isinstance(call, int) else call
        kind = _CLASS_OF.get(name, OTHER)
        total[kind] = total.get(kind, 0) + count
    return {name: total[name] for name in (*CLASSES, OTHER) if total.get(name)}
