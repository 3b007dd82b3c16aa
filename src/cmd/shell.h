/* The names that `postern shell` lends: argv as those programs would get it. */
#ifndef CMD_SHELL_H
#define CMD_SHELL_H

int shell_as_kind(int argc, char **argv);
int shell_as_istioctl(int argc, char **argv);

#endif
