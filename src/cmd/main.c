#include <stdio.h>

int main(void)
{
        puts("postern " POSTERN_VERSION);
        return 0;
}
