/* newconn: a new connection a request, from a few threads; prints how many were answered. For the rows of the benchmark that h2load cannot
 * make.
 *
 *     newconn ADDR PORT REQUESTS THREADS [SNI]        with SNI: TLS */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in to;
static atomic_int left, answered;
static const char *sni;
static SSL_CTX *tls;

static int exchange(int fd)
{
        static const char host[] = "example.com";
        char req[256], buf[8192];
        int n = snprintf(req, sizeof(req), "GET /small HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", sni ? sni : host), got = 0, r;

        if (!sni) {
                if (write(fd, req, (size_t)n) != n)
                        return 0;
                while ((r = (int)read(fd, buf, sizeof(buf))) > 0)
                        got += r;
                return got > 12;
        }
        SSL *s = SSL_new(tls);

        SSL_set_fd(s, fd);
        SSL_set_tlsext_host_name(s, sni);
        if (SSL_connect(s) == 1 && SSL_write(s, req, n) == n)
                while ((r = SSL_read(s, buf, sizeof(buf))) > 0)
                        got += r;
        SSL_free(s);
        return got > 12;
}

static void *run(void *arg)
{
        (void)arg;
        while (atomic_fetch_sub(&left, 1) > 0) {
                int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
                        answered += exchange(fd);
                close(fd);
        }
        return NULL;
}

int main(int argc, char **argv)
{
        pthread_t t[64];

        if (argc < 5)
                return 2;
        int threads = atoi(argv[4]);

        to.sin_family = AF_INET;
        to.sin_port = htons((uint16_t)atoi(argv[2]));
        inet_pton(AF_INET, argv[1], &to.sin_addr);
        left = atoi(argv[3]);
        sni = argc > 5 ? argv[5] : NULL;
        tls = SSL_CTX_new(TLS_client_method());
        if (threads < 1 || threads > 64)
                return 2;
        for (int i = 0; i < threads; i++)
                pthread_create(&t[i], NULL, run, NULL);
        for (int i = 0; i < threads; i++)
                pthread_join(t[i], NULL);
        printf("%d\n", answered);
        return 0;
}
