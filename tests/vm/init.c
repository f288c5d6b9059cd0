/* First process of the virtual machine that tests/vm boots.
 *
 * Owns what must happen before there is a Python: loading the modules that the initramfs brings,
 * laying a writable overlay over the host's root, which comes read-only over 9p, and mounting what
 * every program expects. Then it starts the command of /command, reaps whoever is handed to it, and
 * switches the machine off when the command ends; after exit status 100 it becomes systemd instead.
 * Nothing it does can reach the host's files but through the folder that was shared as "out".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODULES "/modules"
#define ROOT "/new"
#define OUT ROOT "/run/vm"
#define BECOME_SYSTEMD 100
#define P9 "trans=virtio,version=9p2000.L,msize=262144,cache=loose"

static void off(const char *why) {
    if (why) printf("vm: %s: %s\n", why, strerror(errno));
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}

static void mounted(const char *what, const char *where, const char *type, const char *options) {
    mkdir(where, 0755);
    if (mount(what, where, type, 0, options)) off(where);
}

static int plain(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* In the order of their names, which is the order in which they need each other. */
static void load_modules(void) {
    struct dirent **found;
    int count = scandir(MODULES, &found, plain, alphasort);
    for (int i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof path, MODULES "/%s", found[i]->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST)) off(path);
        close(file);
    }
}

static void switch_root(void) {
    mounted("host", "/lower", "9p", P9 ",ro");
    mounted("tmpfs", "/upper", "tmpfs", "mode=755");
    mkdir("/upper/files", 0755);
    mkdir("/upper/work", 0755);
    mounted("overlay", ROOT, "overlay", "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work");
    mounted("proc", ROOT "/proc", "proc", "");
    mounted("sysfs", ROOT "/sys", "sysfs", "");
    mounted("devtmpfs", ROOT "/dev", "devtmpfs", "");
    mounted("devpts", ROOT "/dev/pts", "devpts", "ptmxmode=666");
    mounted("tmpfs", ROOT "/dev/shm", "tmpfs", "mode=1777");
    mounted("tmpfs", ROOT "/run", "tmpfs", "mode=755");
    mounted("cgroup2", ROOT "/sys/fs/cgroup", "cgroup2", "nsdelegate");
    mounted("out", OUT, "9p", P9);
    if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".")) off("chroot");
}

/* /command holds the words of the command, each ended by a NUL. */
static char **command(void) {
    static char text[4096], *words[64];
    int file = open("/command", O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (size <= 0) off("/command");
    int count = 0;
    for (char *word = text; word < text + size && count < 63; word += strlen(word) + 1)
        words[count++] = word;
    close(file);
    return words;
}

int main(void) {
    mkdir("/dev", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, "")) off("/dev");
    int console = open("/dev/console", O_RDWR);
    for (int i = 0; i < 3; i++) dup2(console, i);
    char **words = command();
    load_modules();
    switch_root();
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    pid_t main_pid = fork();
    if (main_pid == 0) {
        setsid();
        execv(words[0], words);
        off(words[0]);
    }
    int status = 0;
    for (pid_t gone = 0; gone != main_pid;) {
        int one;
        gone = wait(&one);
        if (gone == main_pid) status = one;
        else if (gone < 0 && errno != EINTR) off("wait");
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == BECOME_SYSTEMD) {
        execl("/lib/systemd/systemd", "systemd", "--unit=vm.target", (char *)NULL);
        off("/lib/systemd/systemd");
    }
    off(NULL);
}
